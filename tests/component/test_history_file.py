"""The history on disk: bounded, private, mended after damage; and the chronicle that writes it."""

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
from typing import Any

import pytest
from clock import ScriptedClock

from syncd.core.clock import utc
from syncd.report import history_store
from syncd.report.history import START, Change, Ending, Mishap, Record, Stages
from syncd.report.history_recorder import Chronicle
from syncd.report.history_store import HistoryFile, encoded
from syncd.scan.manifest import Difference
from syncd.sync.status_document import LastSync, State
from syncd.sync.sync_cycle import Outcome
from syncd.sync.sync_reason import SyncReason

SYNC = LastSync("2026-11-24T13:20:11Z", 3, 1_000, "0" * 64, 1.0)
URL = "https://bucket.example/o?X-Goog-Signature=abcdef&X-Goog-Expires=900"


def record(number: int) -> Record:
    return Record(at=utc(number), began=utc(number), why=f"reason {number}", outcome=Ending.INITIALIZED)


def numbers(file: HistoryFile) -> list[int]:
    """Which of the records above it holds."""
    return [int(found.at.timestamp()) for found in file.read()[0]]


def small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_store, "MOST_BYTES", 8_192)
    monkeypatch.setattr(history_store, "KEPT_BYTES", 4_096)


def test_lines_are_added(tmp_path: Path) -> None:
    """Each record is a line of JSON, the newest last, in a file that only its owner can read."""
    file = HistoryFile(str(tmp_path))
    assert file.read() == ([], 0)
    file.append(record(1))
    file.append(record(2))
    assert numbers(file) == [1, 2]
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600
    lines = Path(file.path).read_bytes().split(b"\n")
    assert lines == [encoded(record(1)), encoded(record(2)), b""]
    assert json.loads(lines[0])["at"] == "1970-01-01T00:00:01Z"


def test_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are added, the file stays within its bound and holds the newest, whole, without a gap."""
    small_bound(monkeypatch)
    file = HistoryFile(str(tmp_path))
    most = 0
    for number in range(300):
        file.append(record(number))
        most = max(most, os.path.getsize(file.path))
        held = numbers(file)
        assert held == list(range(held[0], number + 1))
    assert 4_096 < most <= 8_192
    assert len(held) * len(encoded(record(299))) > 4_096 - 2 * len(encoded(record(299)))
    assert os.listdir(tmp_path) == ["history.jsonl"]


def test_a_month_of_busy_use(tmp_path: Path) -> None:
    """300 syncs a day and a night without a network each: within the bound, with the last days told in full."""
    clock = ScriptedClock()
    file = HistoryFile(str(tmp_path))
    chronicle = Chronicle(clock, file, lambda: "box")
    change = Difference(["src/some/folder/new.py"], ["src/some/folder/a_module_like_any.py"], [])
    for _ in range(30):
        for _ in range(300):
            chronicle.begin("changes")
            for state in (State.SNAPSHOTTING, State.UPLOADING, State.INITIALIZING):
                clock.go_on(0.1)
                chronicle.stage(state)
            clock.go_on(95)
            chronicle.end(Outcome(SYNC, files=3, change=change))
        for number in range(700):
            chronicle.begin("another try after a failure")
            clock.go_on(60)
            chronicle.failed(*(("upload-url", "no answer") if number % 2 else ("initialize", "no route")))
    records, damaged = file.read()
    assert damaged == 0
    assert os.path.getsize(file.path) <= history_store.MOST_BYTES
    assert len(records) > 3 * 302
    assert [found.outcome for found in records[-302:]] == [*["initialized"] * 300, "failed", "failed"]
    assert records[-302].failures_before == 700


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
    """A torn last line, garbage, other JSON: skipped and counted; what is added later is whole."""
    file = HistoryFile(str(tmp_path))
    file.append(record(1))
    file.append(record(2))
    path = Path(file.path)
    path.write_bytes(damage(path.read_bytes()))
    file.append(record(3))
    assert (numbers(file), file.read()[1]) == (held, damaged)


def test_a_file_of_a_later_version(tmp_path: Path) -> None:
    """Fields and words that this version does not know are no damage."""
    line = {
        "version": 2,
        "at": "2026-11-24T13:20:11Z",
        "began": "2026-11-24T13:20:11Z",
        "why": "a moon",
        "outcome": "?",
    }
    (tmp_path / "history.jsonl").write_text(json.dumps({**line, "phase": {"of": "it"}}) + "\n")
    records, damaged = HistoryFile(str(tmp_path)).read()
    assert ([(found.why, found.outcome) for found in records], damaged) == ([("a moon", "?")], 0)


def test_a_huge_file(tmp_path: Path) -> None:
    """What someone else wrote without end is not read whole, and is cut by the next line."""
    file = HistoryFile(str(tmp_path))
    with open(file.path, "wb") as huge:
        huge.truncate(1 << 40)
    assert file.read() == ([], 0)
    file.append(record(1))
    assert numbers(file) == [1]
    assert os.path.getsize(file.path) <= history_store.MOST_BYTES


@pytest.mark.parametrize("make", ["link", "dangling", "fifo", "folder"])
def test_something_else_in_its_place(tmp_path: Path, make: str) -> None:
    """Neither followed nor waited for when read; the next line takes the place."""
    folder = tmp_path / "state"
    folder.mkdir()
    file = HistoryFile(str(folder))
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
    with pytest.raises(OSError, match=r"symbolic|no file"):
        file.read()
    file.append(record(1))
    file.append(record(2))
    assert numbers(file) == [1, 2]
    assert not elsewhere.exists() or elsewhere.read_text() == "mine\n"


@contextmanager
def full_disk(at_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_costs_the_line(tmp_path: Path) -> None:
    """A line that is cut by it is lost and mended, in the file as it is and when it is cut to size."""
    file = HistoryFile(str(tmp_path))
    file.append(record(1))
    with full_disk(os.path.getsize(file.path) + 50), pytest.raises(OSError, match="space"):
        file.append(record(2))
    file.append(record(3))
    assert (numbers(file), file.read()[1]) == ([1, 3], 1)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that can neither grow nor be cut stays as it is, within its bound."""
    small_bound(monkeypatch)
    file = HistoryFile(str(tmp_path))
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


# -- the chronicle


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture
def file(tmp_path: Path) -> HistoryFile:
    return HistoryFile(str(tmp_path))


@pytest.fixture
def chronicle(clock: ScriptedClock, file: HistoryFile) -> Chronicle:
    return Chronicle(clock, file, lambda: "box")


def test_a_sync_with_a_broken_upload(clock: ScriptedClock, file: HistoryFile, chronicle: Chronicle) -> None:
    """All that was sent, every attempt, and the time of each stage; what failed on the way is told."""
    chronicle.begin("a periodic look")
    chronicle.stage(State.SNAPSHOTTING)
    clock.go_on(1)
    chronicle.stage(State.UPLOADING)
    for sent in (0, 300, 700):
        chronicle.sent(sent, 1_000)
        clock.go_on(1)
    chronicle.retrying("upload", f"connection reset by {URL}")
    clock.go_on(5)
    clock.suspend(3_600)
    chronicle.stage(State.UPLOADING)
    for sent in (0, 1_000):
        chronicle.sent(sent, 1_000)
    clock.go_on(2)
    chronicle.stage(State.INITIALIZING)
    clock.go_on(0.25)
    chronicle.end(Outcome(SYNC, files=3, change=Difference(["a", "b"], ["c"], [])))
    (found,), _ = file.read()
    assert found.stages == Stages(packing=1, uploading=5, initializing=0.25, waiting=5)
    assert (found.began, found.at) == (utc(clock.wall - 3_611.25), utc(clock.wall))
    assert (found.why, found.outcome, found.seconds) == ("start", "initialized", 11.25)
    assert (found.files, found.archive_bytes, found.sent_bytes, found.attempts) == (3, 1_000, 1_700, 2)
    assert found.change == Change(added=2, changed=1, first_added="a", first_changed="c")
    assert (found.sandbox, found.failures_before) == ("box", 0)
    assert found.error is not None
    assert found.error.step == "upload"
    assert "X-Goog" not in Path(file.path).read_text()


def test_why(file: HistoryFile, chronicle: Chronicle) -> None:
    """A daemon's first look is its start; a later one is periodic, and what someone asked for stays asked for."""
    for _ in range(2):
        chronicle.begin("a periodic look")
        chronicle.end(Outcome(SYNC))
    ordered = Chronicle(ScriptedClock(), file, lambda: "box")
    ordered.begin("asked for")
    ordered.end(Outcome(SYNC))
    assert [found.why for found in file.read()[0]] == ["start", "a periodic look", "asked for"]


def test_a_long_outage_is_one_line(clock: ScriptedClock, file: HistoryFile, chronicle: Chronicle) -> None:
    """The same failure again and again, in this process and the next, is counted; the success says how often."""
    for number in range(20):
        if number == 10:
            chronicle = Chronicle(clock, file, lambda: "box")  # a restart forgets those without a line
        chronicle.begin("another try after a failure")
        clock.go_on(2)
        chronicle.failed("watch", f"the workspace holds {number} of 900 files")
    chronicle.begin("changes")
    chronicle.end(Outcome(None, files=900))
    chronicle.begin("changes")
    chronicle.end(Outcome(SYNC, files=900))
    records, _ = file.read()
    assert [(found.outcome, found.failures_before) for found in records] == [
        ("failed", 0),
        ("unchanged", 11),
        ("initialized", 0),
    ]


def test_an_idle_or_held_daemon_writes_nothing(clock: ScriptedClock, file: HistoryFile, chronicle: Chronicle) -> None:
    """Neither the looks of a hold nor those that find nothing touch the disk after the first line."""
    chronicle.begin("a periodic look")
    chronicle.failed("watch", "the workspace is missing")
    before = os.stat(file.path)
    for _ in range(5):
        chronicle.begin("another try after a failure")
        clock.go_on(2)
        chronicle.failed("watch", "the workspace is missing")
    assert os.stat(file.path) == before
    chronicle.begin("another try after a failure")
    chronicle.end(Outcome(None))
    os.unlink(file.path)
    for _ in range(5):
        chronicle.begin("a periodic look")
        chronicle.stage(State.SNAPSHOTTING)
        chronicle.end(Outcome(None))
    assert not os.path.exists(file.path)


@pytest.mark.parametrize(
    ("close", "outcome"), [(Chronicle.gave_way, "superseded"), (Chronicle.stopped, "stopped")], ids=["newer", "stop"]
)
def test_a_sync_that_was_broken_off(
    file: HistoryFile, chronicle: Chronicle, close: Callable[[Chronicle], None], outcome: str
) -> None:
    """It is told if bytes were sent for nothing, and not if it had only looked."""
    chronicle.begin("changes")
    chronicle.stage(State.SNAPSHOTTING)
    close(chronicle)
    assert file.read() == ([], 0)
    chronicle.begin("changes")
    chronicle.stage(State.UPLOADING)
    chronicle.sent(17, 1_000)
    close(chronicle)
    (found,), _ = file.read()
    assert (found.outcome, found.sent_bytes, found.files, found.change, found.archive_bytes, found.attempts) == (
        outcome,
        17,
        None,
        None,
        None,
        1,
    )


def test_words_outside_of_a_sync(file: HistoryFile, chronicle: Chronicle) -> None:
    """They are ignored: nothing is written, nothing raised."""
    chronicle.stage(State.UPLOADING)
    chronicle.sent(1, 2)
    chronicle.retrying("upload", "no answer")
    chronicle.failed("upload", "no answer")
    chronicle.gave_way()
    chronicle.stopped()
    chronicle.end(Outcome(SYNC))
    assert not os.path.exists(file.path)


def test_a_history_that_cannot_be_written(clock: ScriptedClock, tmp_path: Path) -> None:
    """It costs the line, never the sync."""
    chronicle = Chronicle(clock, HistoryFile(str(tmp_path / "missing")), lambda: "box")
    chronicle.begin("asked for")
    chronicle.end(Outcome(SYNC))
    chronicle.begin("asked for")
    chronicle.failed("upload", "no answer")


def test_the_line_has_every_key(file: HistoryFile) -> None:
    """Scripts find each key in each line, null where there is nothing to say."""
    file.append(record(1))
    line: dict[str, Any] = json.loads(Path(file.path).read_text())
    assert list(line) == list(Record.__struct_fields__)
    assert list(line["stages"]) == list(Stages.__struct_fields__)


def test_the_document_names_every_key() -> None:
    """`docs/history.md` explains each key of a line, those of its parts too, and none that is not there."""
    text = (Path(__file__).parents[2] / "docs/history.md").read_text("utf-8")
    cells = re.findall(r"^\| (`.*?) \| ", text, re.MULTILINE)
    parts = {"change": Change, "stages": Stages, "error": Mishap}
    keys = {f"{part}.{key}" for part, kind in parts.items() for key in kind.__struct_fields__}
    explained = {key for cell in cells for key in re.findall(r"`([\w.]+)`", cell)}
    assert explained | {"stages"} == keys | set(Record.__struct_fields__)
    for word in [*Ending, START, *(reason.value for reason in SyncReason)]:
        assert f"`{word}`" in text
