"""The history's table: bounded, and read in spite of damage; and what its recorder writes, and when."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from syncd.core.clock import utc
from syncd.model.manifest import Difference
from syncd.report import history
from syncd.report.history import (
    ErrorRecord,
    HistoryRecorder,
    SyncEnding,
    SyncRecord,
    append,
    records,
    should_record,
)
from syncd.store.state_db import StateDb
from syncd.sync.outcome import Outcome, SyncReason
from syncd.sync.status_document import LastError, LastSync, SandboxStatus
from tests.clock import NOON_S, ScriptedClock

SYNC = LastSync("2026-11-24T13:20:11Z", 3, 1_000, "0" * 64, 1.0)


def record(number: int) -> SyncRecord:
    return SyncRecord(at=utc(number), why="changes", outcome=SyncEnding.INITIALIZED, files=number)


def numbers(db: StateDb) -> list[int | None]:
    return [found.files for found in records(db)]


def test_the_bound(db: StateDb, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept, in their order."""
    monkeypatch.setattr(history, "MOST", 7)
    for number in range(20):
        append(db, record(number))
        assert numbers(db) == list(range(max(0, number - 6), number + 1))


# -- the recorder


def test_what_a_sync_took(clock: ScriptedClock, db: StateDb) -> None:
    """It has the archive's bytes, as `push` says, every attempt, the time awake, and the last failure of its own."""
    recorder = HistoryRecorder(clock, db)
    status = SandboxStatus(name="main", id="box", base_url="https://api", uploaded_bytes=5, failures=3)
    recorder.begin("start", status)
    clock.go_on(5)
    clock.suspend(3_600)
    failed = LastError("2026-11-24T13:20:01Z", "upload", "reset")
    status = replace(status, uploaded_bytes=1_705, failures=4, last_error=failed)
    recorder.end(SyncEnding.INITIALIZED, status, Outcome(SYNC, files=3, change=Difference(["a", "b"], ["c"], [])))
    recorder.begin("asked for", status)
    recorder.end(SyncEnding.UNCHANGED, status, Outcome(None, files=3))
    recorder.end(SyncEnding.STOPPED, status)
    first, second = records(db)
    assert (first.why, first.outcome, first.files) == ("start", "initialized", 3)
    assert (first.sandbox, first.sandbox_id) == ("main", "box")
    assert (first.sent_bytes, first.attempts, first.seconds) == (1_000, 2, 5)
    assert (first.change and first.change.added, first.error and first.error.step) == (2, "upload")
    assert (second.attempts, second.error, second.change, second.sent_bytes) == (1, None, None, 0)


def test_where_it_cannot_be_written(clock: ScriptedClock, tmp_path: Path) -> None:
    """It costs the record, never the sync."""
    recorder = HistoryRecorder(clock, StateDb(str(tmp_path / "none")))
    status = SandboxStatus(name="main", id="box", base_url="https://api")
    recorder.begin("asked for", status)
    recorder.end(SyncEnding.INITIALIZED, status, Outcome(SYNC))


def test_the_document_names_every_key() -> None:
    """The reference explains each key of a line, and each word, and no others."""
    page = (Path(__file__).parents[2] / "docs/reference.md").read_text("utf-8")
    text = page.partition("\n## The history\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \| ", text, re.MULTILINE)
    parts: dict[str, type[Struct]] = {"": SyncRecord, "change.": history.ChangeCounts, "error.": history.ErrorRecord}
    keys = {f"{before}{key}" for before, part in parts.items() for key in part.__struct_fields__}
    assert {key for cell in cells for key in re.findall(r"`([\w.\[\]]+)`", cell)} == keys
    for word in [*SyncEnding, *(reason.value for reason in SyncReason)]:
        assert f"`{word}`" in text


# -- which syncs are recorded


NOON = utc(NOON_S)
BUSY = ErrorRecord("upload", "Klavis' storage answered 503")
STILL_BUSY = ErrorRecord("upload", "Klavis' storage answered 500")
GONE = ErrorRecord("initialize", "no such sandbox")
CHANGES, ASKED, LOOK, RETRY = (
    reason.value for reason in (SyncReason.CHANGE, SyncReason.ORDER, SyncReason.RESCAN, SyncReason.RETRY)
)


def ended_sync(outcome: str, why: str = CHANGES, error: ErrorRecord | None = None, **more: Any) -> SyncRecord:
    return SyncRecord(**{"at": NOON, "why": why, "outcome": outcome, "error": error, **more})


def failed(error: ErrorRecord) -> SyncRecord:
    return ended_sync(SyncEnding.FAILED, error=error)


@pytest.mark.parametrize(
    ("ended", "before", "is_recorded"),
    [
        (ended_sync(SyncEnding.UNCHANGED, LOOK), None, False),
        (ended_sync(SyncEnding.UNCHANGED), None, False),
        (ended_sync(SyncEnding.UNCHANGED, ASKED), None, True),
        (ended_sync(SyncEnding.UNCHANGED, RETRY), failed(BUSY), True),
        (ended_sync(SyncEnding.INITIALIZED, LOOK), None, True),
        (ended_sync(SyncEnding.INITIALIZED, error=BUSY), failed(BUSY), True),
        (ended_sync(SyncEnding.FAILED, error=BUSY), None, True),
        (ended_sync(SyncEnding.FAILED, RETRY, BUSY), failed(BUSY), False),
        (ended_sync(SyncEnding.FAILED, RETRY, STILL_BUSY), failed(BUSY), False),
        (ended_sync(SyncEnding.FAILED, ASKED, BUSY), failed(BUSY), True),
        (ended_sync(SyncEnding.FAILED, RETRY, GONE), failed(BUSY), True),
        (ended_sync(SyncEnding.SUPERSEDED), failed(BUSY), False),
        (ended_sync(SyncEnding.SUPERSEDED, ASKED), None, False),
        (ended_sync(SyncEnding.SUPERSEDED, error=BUSY), None, True),
        (ended_sync(SyncEnding.SUPERSEDED, error=BUSY), failed(BUSY), False),
        (ended_sync(SyncEnding.STOPPED), None, False),
        (ended_sync(SyncEnding.STOPPED, ASKED), None, True),
        (ended_sync(SyncEnding.UNCHANGED, RETRY), ended_sync(SyncEnding.INITIALIZED, error=BUSY), False),
        (ended_sync("a word of a later version", LOOK), None, False),
    ],
)
def test_which_syncs_are_recorded(ended: SyncRecord, before: SyncRecord | None, is_recorded: bool) -> None:
    """Those that were requested or initialized, and those that ended otherwise than the one before."""
    assert should_record(ended, before) is is_recorded
