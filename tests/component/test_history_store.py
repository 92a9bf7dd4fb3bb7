"""The history on disk: bounded, private, repaired after damage; and the recorder that writes it."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from syncd.core.clock import utc
from syncd.report import history_store
from syncd.report.history import START, ChangeCounts, ErrorRecord, Stages, SyncEnding, SyncRecord
from syncd.report.history_recorder import HistoryRecorder
from syncd.report.history_store import HistoryStore, encoded
from syncd.report.sent_paths import ArchiveRecord, SentPath, encoded_lines
from syncd.report.sent_paths_store import SentPathsStore
from syncd.scan.manifest import Difference
from syncd.sync.outcome import Outcome
from syncd.sync.status_document import LastSync, State
from syncd.sync.sync_reason import SyncReason
from tests.clock import ScriptedClock

SYNC = LastSync("2026-11-24T13:20:11Z", 3, 1_000, "0" * 64, 1.0)
URL = "https://bucket.example/o?X-Goog-Signature=abcdef&X-Goog-Expires=900"


def record(number: int) -> SyncRecord:
    return SyncRecord(at=utc(number), began=utc(number), why=f"reason {number}", outcome=SyncEnding.INITIALIZED)


def numbers(file: HistoryStore) -> list[int]:
    """Return the numbers of the records that it holds."""
    return [int(found.at.timestamp()) for found in file.read()[0]]


def recorder_of(clock: ScriptedClock, file: HistoryStore) -> HistoryRecorder:
    return HistoryRecorder(clock, file, lambda: "box", SentPathsStore(os.path.dirname(file.path)))


def small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_store, "MOST_BYTES", 8_192)


def test_lines_are_added(tmp_path: Path) -> None:
    """Each record is a line of JSON, the newest last, in a file that only its owner can read."""
    file = HistoryStore(str(tmp_path))
    assert file.read() == ([], 0)
    file.append(record(1))
    file.append(record(2))
    assert numbers(file) == [1, 2]
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600
    lines = Path(file.path).read_bytes().split(b"\n")
    assert lines == [encoded(record(1)), encoded(record(2)), b""]
    assert json.loads(lines[0])["at"] == "1970-01-01T00:00:01Z"


def test_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stays within its bound and holds the newest records, whole and without a gap."""
    small_bound(monkeypatch)
    file = HistoryStore(str(tmp_path))
    most = 0
    for number in range(300):
        file.append(record(number))
        most = max(most, os.path.getsize(file.path))
        held = numbers(file)
        assert held == list(range(held[0], number + 1))
    assert 4_096 < most <= 8_192
    assert len(held) * len(encoded(record(299))) > 4_096 - 2 * len(encoded(record(299)))
    assert os.listdir(tmp_path) == ["history.jsonl"]


@pytest.mark.parametrize(
    ("damage", "held", "damaged"),
    [
        (lambda content: content[:-20], [1, 3], 1),
        (lambda content: content[:-1], [1, 2, 3], 0),
        (lambda content: b"\x00\xff{}\n" + content, [1, 2, 3], 1),
        (lambda content: content.replace(b"\n", b"\n\n[]\nnull\n", 1), [1, 2, 3], 2),
        (lambda content: content.replace(b'"began":"', b'"began":"soon, ', 1), [2, 3], 1),
        (lambda content: content.replace(b"01Z", b"01", 1), [2, 3], 1),
        (lambda _: b"", [3], 0),
    ],
)
def test_damage_costs_the_damaged_line(
    tmp_path: Path, damage: Callable[[bytes], bytes], held: list[int], damaged: int
) -> None:
    """A torn last line, garbage and other JSON are skipped and counted; later lines are whole."""
    file = HistoryStore(str(tmp_path))
    file.append(record(1))
    file.append(record(2))
    path = Path(file.path)
    path.write_bytes(damage(path.read_bytes()))
    file.append(record(3))
    assert (numbers(file), file.read()[1]) == (held, damaged)


def test_a_file_of_a_later_version(tmp_path: Path) -> None:
    """Unknown fields and words are not damage."""
    line = {
        "version": 2,
        "at": "2026-11-24T13:20:11Z",
        "began": "2026-11-24T13:20:11Z",
        "why": "a moon",
        "outcome": "?",
    }
    (tmp_path / "history.jsonl").write_text(json.dumps({**line, "phase": {"of": "it"}}) + "\n")
    records, damaged = HistoryStore(str(tmp_path)).read()
    assert ([(found.why, found.outcome) for found in records], damaged) == ([("a moon", "?")], 0)


def test_a_huge_file(tmp_path: Path) -> None:
    """A foreign file of any size is not read whole, and is cut by the next line."""
    file = HistoryStore(str(tmp_path))
    with open(file.path, "wb") as huge:
        huge.truncate(1 << 40)
    assert file.read() == ([], 0)
    file.append(record(1))
    assert numbers(file) == [1]
    assert os.path.getsize(file.path) <= history_store.MOST_BYTES


@pytest.mark.parametrize("make", ["link", "dangling", "fifo", "folder"])
def test_something_else_in_its_place(tmp_path: Path, make: str) -> None:
    """It is neither followed nor waited for; the next line replaces it."""
    folder = tmp_path / "state"
    folder.mkdir()
    file = HistoryStore(str(folder))
    elsewhere = tmp_path / "elsewhere"
    if make == "link":
        elsewhere.write_text("mine\n")
        os.symlink(elsewhere, file.path)
    elif make == "dangling":
        os.symlink(elsewhere, file.path)
    elif make == "fifo":
        os.mkfifo(file.path)
    else:
        os.makedirs(os.path.join(file.path, "full"))
    with pytest.raises(OSError, match=r"symbolic|not a file"):
        file.read()
    file.append(record(1))
    file.append(record(2))
    assert numbers(file) == [1, 2]
    assert not elsewhere.exists() or elsewhere.read_text() == "mine\n"


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


def test_a_full_disk_costs_the_line(tmp_path: Path) -> None:
    """A line cut by a full disk is lost and repaired."""
    file = HistoryStore(str(tmp_path))
    file.append(record(1))
    with full_disk(os.path.getsize(file.path) + 50), pytest.raises(OSError, match="space"):
        file.append(record(2))
    file.append(record(3))
    assert (numbers(file), file.read()[1]) == ([1, 3], 1)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that can neither grow nor be cut stays as it is."""
    small_bound(monkeypatch)
    file = HistoryStore(str(tmp_path))
    for number in range(10):
        file.append(record(number))
    os.mkdir(f"{file.path}.new")  # in the way of every rewriting
    written = list(range(10))
    for number in range(10, 100):
        with suppress(IsADirectoryError, PermissionError):
            file.append(record(number))
            written.append(number)
    assert 10 < len(written) < 100
    assert os.path.getsize(file.path) < 8_192
    assert numbers(file) == written


def test_the_names_are_forgotten(tmp_path: Path) -> None:
    """All names of paths go, and lines that cannot be read; with nothing to forget, the file stays as it is."""
    file = HistoryStore(str(tmp_path))
    file.forget_names()
    assert not os.path.exists(file.path)
    file.append(record(1))
    before = os.stat(file.path)
    file.forget_names()
    assert os.stat(file.path) == before
    change = ChangeCounts(added=2, removed=1, first_added="secret-name", first_removed="secret-name")
    file.append(replace(record(2), change=change))
    with open(file.path, "a") as damaged:
        damaged.write('{"torn secret-name\n')
    file.append(record(3))
    file.forget_names()
    assert (numbers(file), file.read()[1]) == ([1, 2, 3], 0)
    assert file.read()[0][1].change == ChangeCounts(added=2, removed=1)
    assert "secret-name" not in Path(file.path).read_text()
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600


# -- the history


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture
def file(tmp_path: Path) -> HistoryStore:
    return HistoryStore(str(tmp_path))


@pytest.fixture
def recorder(clock: ScriptedClock, file: HistoryStore) -> HistoryRecorder:
    return recorder_of(clock, file)


def test_a_sync_with_a_broken_upload(clock: ScriptedClock, file: HistoryStore, recorder: HistoryRecorder) -> None:
    """The line has all bytes sent, every attempt, the time of each stage, and the failures."""
    recorder.begin("a periodic look")
    recorder.stage(State.SNAPSHOTTING)
    clock.go_on(1)
    recorder.stage(State.UPLOADING)
    for sent in (0, 300, 700):
        recorder.sent(sent, 1_000)
        clock.go_on(1)
    recorder.retrying("upload", f"connection reset by {URL}")
    clock.go_on(5)
    clock.suspend(3_600)
    recorder.stage(State.UPLOADING)
    for sent in (0, 1_000):
        recorder.sent(sent, 1_000)
    clock.go_on(2)
    recorder.stage(State.INITIALIZING)
    clock.go_on(0.25)
    recorder.end(Outcome(SYNC, files=3, change=Difference(["a", "b"], ["c"], [])))
    (found,), _ = file.read()
    assert found.stages == Stages(packing=1, uploading=5, initializing=0.25, waiting=5)
    assert (found.began, found.at) == (utc(clock.wall - 3_611.25), utc(clock.wall))
    assert (found.why, found.outcome, found.seconds) == ("start", "initialized", 11.25)
    assert (found.files, found.archive_bytes, found.sent_bytes, found.attempts) == (3, 1_000, 1_700, 2)
    assert found.change == ChangeCounts(added=2, changed=1, first_added="a", first_changed="c")
    assert (found.sandbox, found.failures_before) == ("box", 0)
    assert found.error is not None
    assert found.error.step == "upload"
    assert "X-Goog" not in Path(file.path).read_text()


def test_a_long_outage_is_one_line(clock: ScriptedClock, file: HistoryStore, recorder: HistoryRecorder) -> None:
    """Repeated failures are counted, in this process and the next; the success has their number."""
    for number in range(20):
        if number == 10:
            recorder = recorder_of(clock, file)  # a restart forgets those without a line
        recorder.begin("another try after a failure")
        clock.go_on(2)
        recorder.failed("watch", f"the workspace holds {number} of 900 files")
    recorder.begin("changes")
    recorder.end(Outcome(None, files=900))
    recorder.begin("changes")
    recorder.end(Outcome(SYNC, files=900))
    records, _ = file.read()
    assert [(found.outcome, found.failures_before) for found in records] == [
        ("failed", 0),
        ("unchanged", 11),
        ("initialized", 0),
    ]


@pytest.mark.parametrize(
    ("close", "outcome"),
    [(HistoryRecorder.gave_way, "superseded"), (HistoryRecorder.stopped, "stopped")],
    ids=["newer", "stop"],
)
def test_an_interrupted_sync(
    file: HistoryStore, recorder: HistoryRecorder, close: Callable[[HistoryRecorder], None], outcome: str
) -> None:
    """It gets a line if bytes were sent, and none if it only scanned."""
    recorder.begin("changes")
    recorder.stage(State.SNAPSHOTTING)
    close(recorder)
    assert file.read() == ([], 0)
    recorder.begin("changes")
    recorder.stage(State.UPLOADING)
    recorder.sent(17, 1_000)
    close(recorder)
    (found,), _ = file.read()
    assert (found.outcome, found.sent_bytes, found.files, found.change, found.archive_bytes, found.attempts) == (
        outcome,
        17,
        None,
        None,
        None,
        1,
    )


def test_a_history_that_cannot_be_written(clock: ScriptedClock, tmp_path: Path) -> None:
    """It costs the line, never the sync."""
    recorder = recorder_of(clock, HistoryStore(str(tmp_path / "missing")))
    recorder.begin("asked for")
    recorder.end(Outcome(SYNC))
    recorder.begin("asked for")
    recorder.failed("upload", "no answer")


def test_the_document_names_every_key() -> None:
    """`docs/history.md` explains each key of a line, and no others."""
    text = (Path(__file__).parents[2] / "docs/history.md").read_text("utf-8")
    cells = re.findall(r"^\| (`.*?) \| ", text, re.MULTILINE)
    components = {"change": ChangeCounts, "stages": Stages, "error": ErrorRecord}
    keys = {f"{part}.{key}" for part, kind in components.items() for key in kind.__struct_fields__}
    explained = {key for cell in cells for key in re.findall(r"`([\w.]+)`", cell)}
    sent = ArchiveRecord(sync="", at=utc(0), sandbox="", archive="", named=(SentPath("", ""),))
    keys |= set(json.loads(next(encoded_lines(sent, None))))
    assert explained | {"stages"} == keys | set(SyncRecord.__struct_fields__)
    for word in [*SyncEnding, START, *(reason.value for reason in SyncReason)]:
        assert f"`{word}`" in text
