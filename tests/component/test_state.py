"""What is kept on disk: whole or set aside, private, and never believed beyond the process that wrote it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from clock import ScriptedClock

from syncd.base.errors import ConfigError, Locked
from syncd.base.folders import Folders
from syncd.effects.journal import Journal
from syncd.effects.lease_file import LeaseFile
from syncd.effects.lock import Lock, holder
from syncd.effects.pause_file import PauseFile
from syncd.effects.state_file import StateFile
from syncd.effects.status_file import StatusFile, read_last, read_status
from syncd.policy.lease import Lease
from syncd.policy.manifest import Entry, Kind, Manifest, Stamp
from syncd.policy.status import SandboxName, State, Status
from syncd.policy.target import Target

TARGET = Target("https://api.example.com", "box", "us")
MANIFEST: Manifest = {
    "d": Entry(Kind.DIRECTORY, 0o1755, -1),
    "d/n\udcff\nü": Entry(
        Kind.FILE, 0o644, 2**40, 2**50, stamp=Stamp(-5, 2**62, 2**64 - 1, 2**33), digest=bytes(range(32))
    ),
    "l": Entry(Kind.SYMLINK, 0o777, 0, target="t\udc80"),
}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _empty(content: bytes) -> bytes:
    return b""


def _garbage(content: bytes) -> bytes:
    return b"\0" * len(content)


def _flipped(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


def _newer(content: bytes) -> bytes:
    return content.replace(b"syncd-state 1", b"syncd-state 2")


HARM = pytest.mark.parametrize("harm", [_cut, _empty, _garbage, _flipped, _newer])


@HARM
def test_a_damaged_record_is_set_aside(tmp_path: Path, harm: object) -> None:
    """A record that is cut, garbage or newer reads as none, is named once, and is kept for a person to look at."""
    assert callable(harm)
    record = StateFile(str(tmp_path), "thing")
    record.write(b"payload\nwith lines")
    path = tmp_path / "thing"
    path.write_bytes(harm(path.read_bytes()))
    payload, problem = record.read()
    assert payload is None
    assert problem is not None
    assert "'thing'" in problem.what
    assert (tmp_path / "thing.damaged").exists()
    assert record.read() == (None, None)
    record.write(b"new")
    assert record.read() == (b"new", None)


def test_a_record_is_private_and_whole(tmp_path: Path) -> None:
    """Records are 0600 whatever the umask, and nothing unfinished stays beside them."""
    before = os.umask(0)
    try:
        StateFile(str(tmp_path), "thing").write(b"payload")
        PauseFile(str(tmp_path)).set(paused=True)
        Lock(str(tmp_path)).acquire()
    finally:
        os.umask(before)
    assert {path.name for path in tmp_path.iterdir()} == {"thing", "paused", "lock"}
    assert {mode_of(path) for path in tmp_path.iterdir()} == {0o600}


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    """A half-written file beside the record is no obstacle; a link in its place is not followed."""
    (tmp_path / "thing.new").write_bytes(b"half")
    record = StateFile(str(tmp_path), "thing")
    record.write(b"payload")
    assert record.read() == (b"payload", None)
    victim = tmp_path / "victim"
    (tmp_path / "thing.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        record.write(b"other")
    assert not victim.exists()


def test_the_journal_brings_any_manifest_back(tmp_path: Path) -> None:
    """Names of any bytes, odd times and the largest inodes survive."""
    Journal(str(tmp_path)).record_initialized(TARGET, MANIFEST)
    again, problems = Journal(str(tmp_path)).initialized(TARGET)
    assert again == MANIFEST
    assert list(again or {}) == list(MANIFEST)
    assert problems == []


@pytest.mark.parametrize(
    ("target", "initialized", "uploaded"),
    [
        (TARGET, True, True),
        (Target(TARGET.base_url, "box", "asia"), True, False),
        (Target(TARGET.base_url, "other", "us"), False, False),
        (Target("https://api.eu.example.com", "box", "us"), False, False),
    ],
)
def test_the_journal_is_of_one_sandbox(tmp_path: Path, target: Target, *, initialized: bool, uploaded: bool) -> None:
    """What one sandbox holds says nothing of another; an uploaded archive also lies in one region only."""
    journal = Journal(str(tmp_path))
    journal.record_initialized(TARGET, MANIFEST)
    journal.record_uploaded(TARGET, "identity", 7, "ab")
    assert (journal.initialized(target)[0] is not None) is initialized
    assert (journal.uploaded(target) is not None) is uploaded


def test_initialized_ends_uploaded(tmp_path: Path) -> None:
    """Once a manifest is initialized, no archive waits for it any more; both can be forgotten."""
    journal = Journal(str(tmp_path))
    journal.record_uploaded(TARGET, "identity", 7, "ab")
    journal.record_initialized(TARGET, MANIFEST)
    assert journal.uploaded(TARGET) is None
    journal.record_uploaded(TARGET, "identity", 7, "ab")
    journal.forget_upload()
    assert journal.uploaded(TARGET) is None
    assert journal.initialized(TARGET)[0] == MANIFEST
    journal.forget()
    assert journal.initialized(TARGET) == (None, [])


@pytest.mark.parametrize("payload", [b"", b"\xc1", msgspec.msgpack.encode({"version": 1}), msgspec.msgpack.encode([1])])
@pytest.mark.parametrize("name", ["initialized", "uploaded", "lease"])
def test_a_sound_file_with_a_senseless_record(tmp_path: Path, name: str, payload: bytes) -> None:
    """A record whose checksum holds but which means nothing is set aside, and costs a full sync."""
    StateFile(str(tmp_path), name).write(payload)
    journal = Journal(str(tmp_path))
    manifest, problems = journal.initialized(TARGET)
    assert manifest is None
    assert bool(problems) is (name == "initialized")
    assert journal.uploaded(TARGET) is None
    assert LeaseFile(str(tmp_path), ScriptedClock()).load(TARGET) is None
    assert (tmp_path / f"{name}.damaged").exists()


def test_a_newer_journal_is_set_aside(tmp_path: Path) -> None:
    """A downgrade does not misread what a newer version wrote."""
    newer = {"version": 2, "target": TARGET, "rows": []}
    StateFile(str(tmp_path), "initialized").write(msgspec.msgpack.encode(newer))
    manifest, problems = Journal(str(tmp_path)).initialized(TARGET)
    assert manifest is None
    assert len(problems) == 1


def test_a_lease_outlives_its_process(tmp_path: Path) -> None:
    """A restart, or a reboot after which boottime starts anew, keeps the end by the wall clock."""
    clock = ScriptedClock()
    LeaseFile(str(tmp_path), clock).save(TARGET, Lease("https://h/o", clock.boottime + 1000, 1800))
    clock.go_on(400)
    clock.boottime = 10.0
    lease = LeaseFile(str(tmp_path), clock).load(TARGET)
    assert lease is not None
    assert lease.url == "https://h/o"
    assert lease.ends_s == pytest.approx(610, abs=0.01)


@pytest.mark.parametrize("moved_s", [1001, 100_000, -900, -100_000])
def test_a_lease_beyond_its_life_is_none(tmp_path: Path, moved_s: float) -> None:
    """One that has ended, or that a turned-back clock makes longer than its life, is not used."""
    clock = ScriptedClock()
    LeaseFile(str(tmp_path), clock).save(TARGET, Lease("https://h/o", clock.boottime + 1000, 1800))
    clock.wall += moved_s
    assert LeaseFile(str(tmp_path), clock).load(TARGET) is None


def test_a_lease_is_of_one_way(tmp_path: Path) -> None:
    """A lease for one region or sandbox is none for another; a refused one is forgotten."""
    clock = ScriptedClock()
    file = LeaseFile(str(tmp_path), clock)
    file.save(TARGET, Lease("https://h/o", clock.boottime + 1000, 1800))
    assert file.load(Target(TARGET.base_url, "box", "asia")) is None
    assert file.load(TARGET) is not None
    file.forget()
    assert file.load(TARGET) is None


_HOLD = """
import sys
from syncd.effects.lock import Lock
from syncd.effects.status_file import StatusFile
from syncd.policy.status import SandboxName, State, Status
import os
folder = sys.argv[1]
Lock(folder).acquire()
status = Status(
    running=True, pid=os.getpid(), state=State.UPLOADING, workspace="/w", sandbox=SandboxName("box", "u", "us"),
    syncs=3, retry_at="2026-11-24T13:20:11Z", pending=True,
)
StatusFile(folder).write(status)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock and has written its status, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


NOTHING = Status(running=False, pid=None, state=State.STOPPED, workspace="/w", sandbox=SandboxName("box", "u", "us"))


def test_one_instance_a_workspace(tmp_path: Path) -> None:
    """A second process is refused with the first one's id; a killed one leaves no lock and no status to believe."""
    assert holder(str(tmp_path)) is None
    with another_process(tmp_path) as process:
        assert holder(str(tmp_path)) == process.pid
        with pytest.raises(Locked, match=f"process {process.pid}") as caught:
            Lock(str(tmp_path)).acquire()
        assert caught.value.exit_code == 75
        status = read_status(str(tmp_path), NOTHING)
        assert (status.running, status.pid, status.state) == (True, process.pid, State.UPLOADING)
        process.kill()
        process.wait()
        status = read_status(str(tmp_path), NOTHING)
        assert (status.running, status.pid, status.state, status.retry_at) == (False, None, State.STOPPED, None)
        assert (status.syncs, status.pending) == (3, True)
        assert holder(str(tmp_path)) is None
    lock = Lock(str(tmp_path))
    lock.acquire()
    lock.release()


def test_the_status_of_another_holder_is_not_believed(tmp_path: Path) -> None:
    """A document of a dead daemon is not taken for that of whoever holds the lock now."""
    with another_process(tmp_path):
        ours = msgspec.structs.replace(NOTHING, running=True, pid=1, state=State.WATCHING)
        StatusFile(str(tmp_path)).write(ours)
        assert not read_status(str(tmp_path), NOTHING).running


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"version": 1}', b"null", b'{"workspace": "\xff"}'])
def test_a_senseless_status(tmp_path: Path, content: bytes) -> None:
    """A document that makes no sense, or that is newer, reads as nothing known."""
    (tmp_path / "status.json").write_bytes(content)
    assert read_last(str(tmp_path), NOTHING) == NOTHING
    newer = msgspec.json.encode(msgspec.structs.replace(NOTHING, version=2, syncs=9))
    (tmp_path / "status.json").write_bytes(newer)
    assert read_last(str(tmp_path), NOTHING) == NOTHING


def test_a_status_that_says_nothing_new_is_not_written(tmp_path: Path) -> None:
    """An idle daemon's disk sleeps."""
    file = StatusFile(str(tmp_path))
    file.write(NOTHING)
    before = (tmp_path / "status.json").stat().st_ino
    file.write(NOTHING)
    assert (tmp_path / "status.json").stat().st_ino == before
    file.write(msgspec.structs.replace(NOTHING, syncs=1))
    assert read_last(str(tmp_path), NOTHING).syncs == 1
    assert mode_of(tmp_path / "status.json") == 0o600


def test_a_pause_is_a_file(tmp_path: Path) -> None:
    """Set twice or taken away twice is no error, and another process sees it."""
    pause = PauseFile(str(tmp_path))
    assert not pause.paused
    pause.set(paused=True)
    pause.set(paused=True)
    assert PauseFile(str(tmp_path)).paused
    pause.set(paused=False)
    pause.set(paused=False)
    assert not pause.paused


def test_folders_are_private(tmp_path: Path) -> None:
    """Both folders and their parents of ours are 0700, also where they were there before."""
    folders = Folders(str(tmp_path / "state/syncd/p"), str(tmp_path / "cache/syncd/p"))
    Path(folders.state).mkdir(parents=True)
    for path in (tmp_path / "state/syncd", Path(folders.state)):
        path.chmod(0o755)
    before = os.umask(0)
    try:
        folders.make()
    finally:
        os.umask(before)
    own = [Path(folders.state), Path(folders.state).parent, Path(folders.spool), Path(folders.spool).parent]
    assert {mode_of(path) for path in own} == {0o700}
    folders.make()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    """A file in a folder's place is one line with a remedy."""
    (tmp_path / "state").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        Folders(str(tmp_path / "state/syncd/p"), str(tmp_path / "cache/syncd/p")).make()
