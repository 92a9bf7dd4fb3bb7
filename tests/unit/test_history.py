"""The syncs that are recorded, the paths of an archive that are named, and the reading of lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from syncd.core.clock import utc
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.report.history import (
    ArchiveRecord,
    ErrorRecord,
    SyncEnding,
    SyncRecord,
    archive_record,
    decoded,
    encoded,
    should_record,
)
from syncd.sync.outcome import SentArchive, SyncReason
from tests.clock import NOON_S

NOON = utc(NOON_S)
BUSY = ErrorRecord("upload", "the bucket answered 503")
STILL_BUSY = ErrorRecord("upload", "the bucket answered 500")
GONE = ErrorRecord("initialize", "no such sandbox")
CHANGES, ASKED, LOOK, RETRY = (
    reason.value for reason in (SyncReason.CHANGE, SyncReason.ORDER, SyncReason.RESCAN, SyncReason.RETRY)
)


def record(outcome: str, why: str = CHANGES, error: ErrorRecord | None = None, **more: Any) -> SyncRecord:
    return SyncRecord(**{"id": "abcdef", "at": NOON, "why": why, "outcome": outcome, "error": error, **more})


def failed(error: ErrorRecord) -> SyncRecord:
    return record(SyncEnding.FAILED, error=error)


@pytest.mark.parametrize(
    ("ended", "before", "is_recorded"),
    [
        (record(SyncEnding.UNCHANGED, LOOK), None, False),
        (record(SyncEnding.UNCHANGED), None, False),
        (record(SyncEnding.UNCHANGED, ASKED), None, True),
        (record(SyncEnding.UNCHANGED, RETRY), failed(BUSY), True),
        (record(SyncEnding.INITIALIZED, LOOK), None, True),
        (record(SyncEnding.INITIALIZED, error=BUSY), failed(BUSY), True),
        (record(SyncEnding.FAILED, error=BUSY), None, True),
        (record(SyncEnding.FAILED, RETRY, BUSY), failed(BUSY), False),
        (record(SyncEnding.FAILED, RETRY, STILL_BUSY), failed(BUSY), False),
        (record(SyncEnding.FAILED, ASKED, BUSY), failed(BUSY), True),
        (record(SyncEnding.FAILED, RETRY, GONE), failed(BUSY), True),
        (record(SyncEnding.SUPERSEDED), failed(BUSY), False),
        (record(SyncEnding.SUPERSEDED, ASKED), None, False),
        (record(SyncEnding.SUPERSEDED, error=BUSY), None, True),
        (record(SyncEnding.SUPERSEDED, error=BUSY), failed(BUSY), False),
        (record(SyncEnding.STOPPED), None, False),
        (record(SyncEnding.STOPPED, ASKED), None, True),
        (record(SyncEnding.UNCHANGED, RETRY), record(SyncEnding.INITIALIZED, error=BUSY), False),
        (record("a word of a later version", LOOK), None, False),
    ],
)
def test_which_syncs_are_recorded(ended: SyncRecord, before: SyncRecord | None, is_recorded: bool) -> None:
    """Those that were requested or initialized, and those that ended otherwise than the one before."""
    assert should_record(ended, before) is is_recorded


# -- which paths left


def file(text: str, mtime_s: int = 1, **more: Any) -> Entry:
    return Entry(Kind.FILE, 0o644, mtime_s, len(text), digest=text.encode(), **more)


DIRECTORY = Entry(Kind.DIRECTORY, 0o755, 1)
BASE = Manifest({"d": DIRECTORY, "d/same": file("same"), "d/new": file("old"), "gone": file("gone"), "x": file("x")})
NOW = Manifest(
    {
        "d": DIRECTORY,
        "d/link": Entry(Kind.SYMLINK, 0o777, 1, target="same"),
        "d/new": file("new"),
        "d/same": file("same"),
        "d/torn": Entry(Kind.FILE, 0o644, 1, 4, sent_digest=b"half"),
        "x": Entry(Kind.FILE, 0o755, 1, 1, digest=b"x"),
    }
)


def archive(entries: Manifest, base: Manifest | None = None, *removed: str, is_whole: bool = True) -> SentArchive:
    return SentArchive("identity", entries, base or Manifest(), removed, is_whole)


def total(found: ArchiveRecord) -> tuple[int, int]:
    held = [row for row in found.rows if row.change != "removed"]
    return sum(row.paths for row in held), sum(row.bytes or 0 for row in held)


@pytest.mark.parametrize("base", [None, BASE], ids=["no base", "base"])
@pytest.mark.parametrize("named_bytes", [0, 2_000])
def test_a_huge_archive_is_counted(base: Manifest | None, named_bytes: int) -> None:
    """Beyond the bound paths are counted, with their sizes; none is lost between the two."""
    entries = NOW | {f"many/{number}": file("1234567") for number in range(500)} | {"many": DIRECTORY}
    found = archive_record(NOON, archive(entries, base, *(f"gone{number}" for number in range(30))), named_bytes)
    assert len(json.dumps([row.path for row in found.rows])) < 1_000
    assert any(row.path for row in found.rows) == (named_bytes > 0)
    assert total(found) == (len(entries), entries.content_bytes)
    assert sum(row.paths for row in found.rows if row.change == "removed") == 30


# -- the lines


def test_damaged_lines() -> None:
    """They are skipped and counted; unknown fields and words are no damage."""
    line = encoded(record("?")).strip()
    later = json.dumps({**json.loads(line), "id": "later", "version": 2, "phase": {"of": "it"}}).encode()
    damaged = (line[:-20], b"\x00\xff{}", b"[]", b"[" * 100_000, line.replace(b"11Z", b"11"))
    found, count = decoded(b"\n".join([line, *damaged, b"", later]))
    assert ([each.id for each in found], count) == (["abcdef", "later"], len(damaged))
