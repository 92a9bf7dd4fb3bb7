"""The paths that left, on disk: bounded, private, repaired after damage; and the recorder that writes them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from syncd.core.clock import utc
from syncd.report import sent_paths_store
from syncd.report.history_recorder import HistoryRecorder
from syncd.report.history_store import HistoryStore
from syncd.report.sent_paths import ArchiveRecord, SentPath, UnnamedPaths
from syncd.report.sent_paths_store import SentPathsStore
from syncd.scan.entry import Entry, Kind
from syncd.scan.manifest import Manifest
from syncd.sync.outcome import Outcome
from syncd.sync.sent_archive import SentArchive
from syncd.sync.status_document import LastSync
from tests.clock import ScriptedClock

SYNC = LastSync("2026-11-24T13:20:11Z", 3, 1_000, "0" * 64, 1.0)
SENT = ArchiveRecord(
    sync="abcdef",
    at=utc(1.5),
    sandbox="box",
    archive="whole",
    named=(SentPath("added", "n\udcff\x1b\n'\"é", 3, "ab"), SentPath("removed", "g")),
    unnamed=(UnnamedPaths("unchanged", 2, 9),),
)


@pytest.fixture
def store(tmp_path: Path) -> SentPathsStore:
    return SentPathsStore(str(tmp_path))


def test_a_record_is_read_as_written(store: SentPathsStore) -> None:
    """Any name is kept, each record on a line, in a file that only its owner can read."""
    assert store.read() == ([], 0)
    store.append(SENT)
    store.append(replace(SENT, sync="second"))
    assert store.read() == ([SENT, replace(SENT, sync="second")], 0)
    assert Path(store.path).read_bytes().count(b"\n") == 2
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o600


def test_damage_costs_the_damaged_line(store: SentPathsStore) -> None:
    """A torn line, garbage and other JSON are skipped and counted; later lines are whole."""
    store.append(SENT)
    written = Path(store.path).read_bytes()
    garbage = (b"\xff\x00{}", b"[]", b"[" * 100_000, written.replace(b'"added"', b"7").strip(), written[:-20])
    Path(store.path).write_bytes(b"\n".join([written.strip(), *garbage]))
    store.append(SENT)
    assert store.read() == ([SENT, SENT], len(garbage))


def test_the_oldest_go_first(store: SentPathsStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stays within its bound, and the largest record leaves others their place."""
    assert sent_paths_store.MOST_BYTES == 8 << 20
    monkeypatch.setattr(sent_paths_store, "MOST_BYTES", 8_192)
    store = SentPathsStore(str(tmp_path))
    large = replace(SENT, named=tuple(SentPath("added", f"{number:090}") for number in range(10)))
    for number in range(100):
        store.append(replace(large if number == 90 else SENT, sync=f"{number:06}"))
        assert os.path.getsize(store.path) <= 8_192
    kept = [int(sent.sync) for sent in store.read()[0]]
    assert kept == list(range(kept[0], 100))
    assert kept[0] < 85


# -- the recorder


def archive(name: str = "a", identity: str = "1") -> SentArchive:
    entry = Entry(Kind.FILE, 0o644, 1, 5, digest=b"12345")
    return SentArchive(identity, Manifest({name: entry}), Manifest(), (), is_whole=True)


@pytest.fixture
def history(tmp_path: Path) -> HistoryStore:
    return HistoryStore(str(tmp_path))


@pytest.fixture
def recorder(history: HistoryStore, store: SentPathsStore) -> HistoryRecorder:
    return HistoryRecorder(ScriptedClock(), history, lambda: "box", store)


def paths(store: SentPathsStore) -> list[tuple[str, list[str]]]:
    return [(sent.sync, [row.path for row in sent.named]) for sent in store.read()[0]]


def test_a_failed_sync_has_its_paths(recorder: HistoryRecorder, store: SentPathsStore, history: HistoryStore) -> None:
    """Whatever ends it, its line has the id under which its paths are; also where the same failure has a line."""
    for number, end in enumerate(
        (recorder.gave_way, recorder.stopped, *[lambda: recorder.failed("upload", "503")] * 2)
    ):
        recorder.begin("changes")
        recorder.sending(archive(f"f{number}", f"{number}"))
        end()
    records = history.read()[0]
    assert [record.outcome for record in records] == ["superseded", "stopped", "failed", "failed"]
    assert [(record.id, [f"f{number}"]) for number, record in enumerate(records)] == paths(store)
    assert [record.paths_in for record in records] == [record.id for record in records]


def test_an_archive_that_is_sent_all_night(
    recorder: HistoryRecorder, store: SentPathsStore, history: HistoryStore
) -> None:
    """It is recorded once, and the sync that succeeds names that record; after that it is recorded anew."""
    for _ in range(5):
        recorder.begin("another try after a failure")
        recorder.sending(archive())
        recorder.failed("upload", "503")
    recorder.begin("another try after a failure")
    recorder.sending(archive())
    recorder.end(Outcome(SYNC))
    recorder.begin("asked for")
    recorder.sending(archive())
    recorder.end(Outcome(SYNC))
    first, success, forced = history.read()[0]
    assert [sync for sync, _ in paths(store)] == [first.id, forced.id]
    assert (first.paths_in, success.paths_in, forced.paths_in) == (first.id, first.id, forced.id)
    assert success.id != first.id


def test_paths_that_cannot_be_written(history: HistoryStore, tmp_path: Path) -> None:
    """They cost their record, never the sync."""
    recorder = HistoryRecorder(ScriptedClock(), history, lambda: "box", SentPathsStore(str(tmp_path / "missing")))
    recorder.sending(archive())  # outside of a sync
    recorder.begin("changes")
    recorder.sending(archive())
    recorder.end(Outcome(SYNC))
    assert [record.paths_in for record in history.read()[0]] == [None]
