"""One process a workspace: the lock, and the status of the process that holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from syncd.core.directories import Lock, holder
from syncd.core.errors import NeedsPerson
from syncd.report.status_store import encoded, read_status, write_status
from tests.component.sample_records import NOTHING


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no other syncd: a person has to move the folder."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refused)
    message = r"takes no lock \(No locks available\): move it with XDG_STATE_HOME$"
    with pytest.raises(NeedsPerson, match=message), Lock(str(tmp_path)):
        pass


def test_the_status_of_another_holder_is_not_used(tmp_path: Path) -> None:
    """The document of a dead daemon does not count for the process that holds the lock now."""
    held = "with Lock(sys.argv[1]): print(); sys.stdin.read()"
    code = f"import sys; from syncd.core.directories import Lock\n{held}"
    command = [sys.executable, "-c", code, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        dead = msgspec.structs.replace(NOTHING, running=True, pid=1)
        write_status(str(tmp_path), encoded(dead))
        assert (holder(str(tmp_path)), read_status(str(tmp_path), NOTHING).running) == (other.pid, False)
        other.kill()
