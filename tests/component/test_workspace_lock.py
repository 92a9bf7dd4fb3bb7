"""One process a workspace: the lock, and the status of the process that holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from syncd.core.directories import Lock, holder
from syncd.core.errors import Locked, NeedsPerson
from syncd.report.status_store import encoded, read_status, write_status
from syncd.sync.status_document import State
from tests.component.sample_records import NOTHING

_HOLD = """
import sys
from syncd.core.directories import Lock
from syncd.report.status_store import encoded, write_status
from syncd.sync.status_document import SandboxName, State, Status
import os
folder = sys.argv[1]
Lock(folder).acquire()
status = Status(
    running=True, pid=os.getpid(), state=State.UPLOADING, workspace="/w", sandbox=SandboxName("box", "u", "us"),
    syncs=3, retry_at="2026-11-24T13:20:11Z", pending=True,
)
write_status(folder, encoded(status))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path, first: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock and has written its status, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", first + _HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_one_instance_per_workspace(tmp_path: Path) -> None:
    """A second process is refused with the id of the first; a killed one leaves no lock, nor a status that counts."""
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


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no other syncd: a person has to move the folder."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refused)
    with pytest.raises(NeedsPerson, match=r"takes no lock \(No locks available\): move it with XDG_STATE_HOME$"):
        Lock(str(tmp_path)).acquire()


def test_the_status_of_another_holder_is_not_used(tmp_path: Path) -> None:
    """The document of a dead daemon does not count for the process that holds the lock now."""
    with another_process(tmp_path):
        ours = msgspec.structs.replace(NOTHING, running=True, pid=1, state=State.WATCHING)
        write_status(str(tmp_path), encoded(ours))
        assert not read_status(str(tmp_path), NOTHING).running
