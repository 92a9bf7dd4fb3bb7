"""Files on disk: whole or set aside, private, and never trusted beyond the process that they belong to."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from syncd.cli.agent_side import no_sync_begins
from syncd.core.clock import SystemClock
from syncd.core.directories import Directories, Lock, holder
from syncd.core.durable_file import PauseMarker, StateFile
from syncd.core.errors import NeedsPerson
from syncd.core.settings import check_config
from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.daemon.build import folders_of
from syncd.remote.target import Target
from syncd.report.status_store import encoded, read_document, read_status, write_status
from syncd.sync.status_document import SandboxStatus, State, Status
from syncd.sync.synced_hook import ToldRecord, told_state

_BOX = SandboxStatus(name="main", id="box", base_url="u", region="us", state=State.STOPPED)
NOTHING = Status(running=False, pid=None, workspace="/w", sandboxes=(_BOX,))
SOMETHING = msgspec.structs.replace(NOTHING, started_at="2026-11-24T13:20:11Z")
KNOWN = ToldRecord(sandboxes={"main": "one"})


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[:-1],
    "empty": lambda content: b"",
    "garbage": lambda content: b"\0" * len(content),
    "flipped": lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
    "newer": lambda content: content.replace(b"syncd-state 1", b"syncd-state 2"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_record_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    """A record that is cut, garbage or newer reads as none, is reported once, and is kept for a person to look at."""
    record = StateFile(str(tmp_path), "thing", bytes, "")
    record.save(b"payload\nwith lines")
    path = tmp_path / "thing"
    path.write_bytes(damage(path.read_bytes()))
    assert record.load() is None
    assert record.load() is None
    assert caplog.text.count("the state file 'thing' was damaged") == 1
    assert (tmp_path / "thing.damaged").exists()
    record.save(b"new")
    assert record.load() == b"new"


@pytest.mark.parametrize("value", [None, {"version": 1}, [1], "text"])
def test_a_valid_file_with_an_invalid_record(tmp_path: Path, value: object) -> None:
    """It is set aside although its checksum is right."""
    StateFile(str(tmp_path), "thing", object, "").save(value)
    assert StateFile(str(tmp_path), "thing", Target, "").load() is None
    assert (tmp_path / "thing.damaged").exists()


def test_a_record_is_private_and_complete(tmp_path: Path) -> None:
    """Records are 0600 whatever the umask, and no draft stays beside them."""
    before = os.umask(0)
    try:
        StateFile(str(tmp_path), "thing", bytes, "").save(b"payload")
        PauseMarker(str(tmp_path)).create()
        with Lock(str(tmp_path)):
            pass
    finally:
        os.umask(before)
    assert {path.name for path in tmp_path.iterdir()} == {"thing", "paused", "lock"}
    assert {mode_of(path) for path in tmp_path.iterdir()} == {0o600}


def test_a_draft_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    """A partial file beside the record is no obstacle; a link in its place is not followed."""
    (tmp_path / "thing.new").write_bytes(b"half")
    record = StateFile(str(tmp_path), "thing", bytes, "")
    record.save(b"payload")
    assert record.load() == b"payload"
    victim = tmp_path / "victim"
    (tmp_path / "thing.new").symlink_to(victim)
    record.save(b"other")
    assert record.load() == b"other"
    assert not victim.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"thing"}


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):  # its path must be short
        server.bind(path.name)


def link_to_a_file(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("not ours")
    path.symlink_to(victim)


KINDS: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a full folder": lambda path: (path / "deep/er").mkdir(parents=True),
    "a FIFO": os.mkfifo,
    "a socket": bound_socket,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to a file": link_to_a_file,
}
RECORDS = ["agent", "status.json"]


def _read_all(folder: str) -> list[object]:
    """The values of both records."""
    return [told_state(folder).load(), read_document(folder) or NOTHING]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [name for name in KINDS if not name.endswith("folder")])
def test_another_kind_of_entry_in_a_records_place(tmp_path: Path, name: str) -> None:
    """It reads as none, without a wait, and the next write replaces it, whatever it is."""
    for _ in range(3):
        for record in RECORDS:
            KINDS[name](tmp_path / record)
        assert _read_all(str(tmp_path)) == [None, NOTHING]
        told_state(str(tmp_path)).save(KNOWN)
        write_status(str(tmp_path), encoded(SOMETHING))
        assert _read_all(str(tmp_path)) == [KNOWN, SOMETHING]
        for record in RECORDS:
            (tmp_path / record).unlink()
    if (tmp_path / "victim").exists():
        assert (tmp_path / "victim").read_text() == "not ours"


def test_a_folder_in_a_records_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It reads as none. One is set aside; the second one, and one in a document's place, a person has to remove."""
    for _ in range(2):
        for name in RECORDS:
            (tmp_path / name / "deep").mkdir(parents=True, exist_ok=True)
        assert _read_all(str(tmp_path)) == [None, NOTHING]
    assert f"remove {tmp_path}/agent (Directory not empty)" in caplog.text
    with pytest.raises(IsADirectoryError):
        told_state(str(tmp_path)).save(KNOWN)
    with pytest.raises(IsADirectoryError):
        write_status(str(tmp_path), encoded(SOMETHING))


def test_many_missing_folders(tmp_path: Path) -> None:
    """A place of 1,500 folders that are to be made is as good as any, and all are private."""
    deep = "/".join("d" * 1500)
    folders = Directories(f"{tmp_path}/state/{deep}/p", f"{tmp_path}/cache/{deep}/p")
    folders.make()
    assert mode_of(Path(folders.state)) == 0o700
    assert mode_of(tmp_path / "state/d") == 0o700
    subprocess.run(["rm", "-r", tmp_path / "state", tmp_path / "cache"], check=True)  # pytest's own way is recursive


# -- one process a workspace


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no other syncd: a person has to move the folder."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refused)
    error = pytest.raises(NeedsPerson, match=r"takes no lock \(No locks available\): move it with XDG_STATE_HOME$")
    with error, Lock(str(tmp_path)):
        pass


HELD = "import sys; from syncd.core.directories import Lock\nwith Lock(sys.argv[1]): print(); sys.stdin.read()"


@contextlib.contextmanager
def held_by_another(folder: str) -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that has the lock, and answers nobody."""
    command = [sys.executable, "-c", HELD, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        yield other
        other.kill()


def test_the_status_of_another_holder_is_not_used(tmp_path: Path) -> None:
    """The document of a dead daemon does not count for the process that holds the lock now."""
    with held_by_another(str(tmp_path)) as other:
        dead = msgspec.structs.replace(NOTHING, running=True, pid=1)
        write_status(str(tmp_path), encoded(dead))
        assert (holder(str(tmp_path)), read_status(str(tmp_path), NOTHING).running) == (other.pid, False)


def test_a_lock_that_is_no_file(tmp_path: Path) -> None:
    """Nobody holds a FIFO, and nobody waits for it."""
    os.mkfifo(tmp_path / "lock")
    assert holder(str(tmp_path)) is None


def test_what_writes_waits_for_a_daemon_that_does_not_listen_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a start, or a reload: a moment later it listens, or has ended."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    config = check_config({"workspace": {"path": str(tmp_path / "work")}, "sandbox": {"id": "box"}})
    waiter = Waiter(Interrupt(), SystemClock())
    with held_by_another(folders_of(config, os.environ).state) as other:

        def ends(_: float) -> None:
            other.kill()
            other.wait()

        monkeypatch.setattr(waiter, "sleep", ends)
        with no_sync_begins(config, waiter):
            assert other.returncode is not None
