"""The history's file: bounded, private, repaired after damage; and what its recorder writes, and when."""

from __future__ import annotations

import os
import re
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec import Struct

from syncd.core.clock import utc
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Difference, Manifest
from syncd.report import history
from syncd.report.history import NAMED_BYTES, START, HistoryRecorder, HistoryStore, SyncEnding, SyncRecord
from syncd.sync.outcome import Outcome, SentArchive, SyncReason
from syncd.sync.status_document import LastSync
from tests.clock import ScriptedClock

SYNC = LastSync("2026-11-24T13:20:11Z", 3, 1_000, "0" * 64, 1.0)


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture
def store(tmp_path: Path) -> HistoryStore:
    return HistoryStore(str(tmp_path))


@pytest.fixture
def recorder(clock: ScriptedClock, store: HistoryStore) -> HistoryRecorder:
    return HistoryRecorder(clock, store, "main", lambda: "box", NAMED_BYTES)


def record(number: int) -> SyncRecord:
    return SyncRecord(id=f"{number:06}", at=utc(number), why="changes", outcome=SyncEnding.INITIALIZED)


def numbers(store: HistoryStore) -> list[int]:
    return [int(found.id) for found in store.read()[0]]


def archive(name: str = "a", identity: str = "1") -> SentArchive:
    entry = Entry(Kind.FILE, 0o644, 1, 5, digest=b"12345")
    return SentArchive(identity, Manifest({name: entry}), Manifest(), (), is_whole=True)


def paths(found: SyncRecord) -> list[str | None]:
    return [row.path for row in found.rows()]


def test_the_bound(store: HistoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stays within its bound, for its owner alone, and holds the newest records without a gap."""
    monkeypatch.setattr(history, "MOST_BYTES", 8_192)
    most = 0
    for number in range(100):
        store.append(record(number))
        most = max(most, os.path.getsize(store.path))
        held = numbers(store)
        assert held == list(range(held[0], number + 1))
    assert 4_096 < most <= 8_192
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o600
    os.truncate(store.path, 1 << 40)  # a foreign file of any size is not read whole
    store.append(record(100))
    assert numbers(store)[-1] == 100
    assert os.path.getsize(store.path) <= 8_192


@contextmanager
def full_disk(at_bytes: int) -> Iterator[None]:
    """Limit the size of this process's files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_line_that_is_cut_short(store: HistoryStore) -> None:
    """By a full disk or a crash: it costs that line, and the next one is whole."""
    store.append(record(1))
    with full_disk(os.path.getsize(store.path) + 50):
        store.append(record(2))
    store.append(record(3))
    assert (numbers(store), store.read()[1]) == ([1, 3], 1)


# -- the recorder


def test_what_a_sync_took(clock: ScriptedClock, store: HistoryStore, recorder: HistoryRecorder) -> None:
    """Its line has all bytes sent, every attempt, the time awake, and the last failure without its URL's signature."""
    recorder.begin("a periodic look")
    for sent in (0, 300, 700):
        recorder.sent(sent)
    recorder.retrying("upload", "reset by https://bucket.example/o?X-Goog-Signature=abcdef&X-Goog-Expires=900")
    clock.go_on(5)
    clock.suspend(3_600)
    for sent in (0, 1_000):
        recorder.sent(sent)
    recorder.succeeded(Outcome(SYNC, files=3, change=Difference(["a", "b"], ["c"], [])))
    (found,), _ = store.read()
    assert (found.why, found.outcome, found.files, found.sandbox, found.sandbox_id) == (
        START,
        "initialized",
        3,
        "main",
        "box",
    )
    assert (found.sent_bytes, found.attempts, found.seconds) == (1_700, 2, 5)
    assert (found.change and found.change.added, found.error and found.error.step) == (2, "upload")
    assert "X-Goog" not in Path(store.path).read_text()


def test_an_archive_that_is_sent_all_night(store: HistoryStore, recorder: HistoryRecorder) -> None:
    """It is recorded once, and the sync that succeeds has its paths too; after that it is recorded anew."""
    for _ in range(5):
        recorder.begin("another try after a failure")
        for _ in range(3):  # attempts
            recorder.sending(archive())
        recorder.failed("upload", "503")
    for _ in range(2):
        recorder.begin("asked for")
        recorder.sending(archive())
        recorder.succeeded(Outcome(SYNC))
    first, success, forced = store.read()[0]
    assert [paths(found) for found in (first, success, forced)] == [["a"]] * 3
    assert (success.repeats, forced.repeats) == (first.id, None)
    assert Path(store.path).read_text().count('"sent":[{') == 2


def test_where_it_cannot_be_written(clock: ScriptedClock, tmp_path: Path) -> None:
    """It costs the record, never the sync; calls outside of a sync are ignored."""
    (tmp_path / "history.jsonl").symlink_to(tmp_path / "elsewhere")
    recorder = HistoryRecorder(clock, HistoryStore(str(tmp_path)), "main", lambda: "box", NAMED_BYTES)
    recorder.begin("asked for")
    recorder.sending(archive())
    recorder.succeeded(Outcome(SYNC))
    recorder.sending(archive())
    recorder.retrying("upload", "no answer")
    recorder.failed("upload", "no answer")
    recorder.succeeded(Outcome(SYNC))
    recorder.end(SyncEnding.STOPPED)
    assert not (tmp_path / "elsewhere").exists()


def test_the_document_names_every_key() -> None:
    """`docs/history.md` explains each key of a line, and each word, and no others."""
    text = (Path(__file__).parents[2] / "docs/history.md").read_text("utf-8")
    cells = re.findall(r"^\| (`.*?) \| ", text, re.MULTILINE)
    parts: dict[str, type[Struct]] = {"": SyncRecord, "change.": history.ChangeCounts, "error.": history.ErrorRecord}
    parts |= {"sent[].": history.ArchiveRecord, "rows[].": history.PathRecord}
    keys = {f"{before}{key}" for before, part in parts.items() for key in part.__struct_fields__}
    assert {key for cell in cells for key in re.findall(r"`([\w.\[\]]+)`", cell)} == keys
    for word in [*SyncEnding, START, *(reason.value for reason in SyncReason)]:
        assert f"`{word}`" in text
