"""Files that are written all the time, and changes that no time or event tells of, by the real daemon."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.system.command import Finished
from tests.system.rig import Rig

# A line that is long to read: it changes many times meanwhile, on any machine.
_LARGE = b"the same line again and again\n" * 800_000
_WRITER = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY)
while True:
    for place in range(0, os.fstat(file).st_size, 1 << 20):
        os.pwrite(file, os.urandom(1), place)
"""

_APPENDER = """
import select, sys
with open(sys.argv[1], "ab", buffering=0) as file:
    while True:
        file.write(b"one more line\\n")
        select.select([], [], [], 0.001)
"""


@contextmanager
def written_all_the_time(rig: Rig, name: str, writer_program: str = _WRITER) -> Iterator[None]:
    """Let another process write into the file without end."""
    writer = subprocess.Popen([sys.executable, "-c", writer_program, str(rig.workspace / name)])
    try:
        yield
    finally:
        writer.kill()
        writer.wait()


def disturbed(rig: Rig, command: str) -> tuple[Finished, int]:
    """Run it until all its reads met a write, as a busy machine may give the writer no time; and count its syncs."""

    def run() -> tuple[Finished, int] | None:
        before = rig.count("initialize", 200)
        ended = rig.run(*command.split())
        return None if ended.code == 0 else (ended, rig.count("initialize", 200) - before)

    ended, syncs = rig.until(run, f"a {command} whose reads all met a write")
    assert ended.code == 75
    return ended, syncs


@pytest.mark.parametrize("command", ["flush", "push --json"])
def test_alone(rig: Rig, command: str) -> None:
    """Without a daemon the exit code is 75 with the file's name; `status` shows it until it is whole.

    So it is for a push while syncing is paused.
    """
    rig.write("build/out.bin", _LARGE)
    rig.write("a", "here")
    if command != "flush":
        rig.ok("pause")
    with written_all_the_time(rig, "build/out.bin"):
        ended, syncs = disturbed(rig, command)
    assert ended.out == ""
    last = ended.err.splitlines()[-1]
    assert last.startswith("syncd: 'build/out.bin' kept changing while being read: its copy in the sandbox may be")
    assert ended.err.count("out.bin") == 1
    assert (rig.sandbox.workspace / "a").read_text() == "here"
    assert syncs == 3
    status = rig.status()
    assert status["pending"] is True
    assert [warning.partition(":")[0] for warning in status["warnings"]] == [
        "'build/out.bin' was written while it was read"
    ]
    rig.ok("resume")
    rig.ok("flush")
    rig.converged()
    assert (rig.status()["pending"], rig.status()["warnings"]) == (False, [])


@pytest.mark.parametrize("command", ["flush", "push --force"])
def test_with_a_daemon(rig: Rig, command: str) -> None:
    """It answers after two more syncs, each after a wait for the writer; the daemon goes on."""
    rig.configure({"sync.max_wait_seconds": 0.6})
    rig.write("build/out.bin", _LARGE)
    rig.write("a", "here")
    rig.up()
    with written_all_the_time(rig, "build/out.bin"):
        rig.write("b", "here, too")
        ended, _ = disturbed(rig, command)
        assert ended.err.splitlines()[-1].startswith("syncd: 'build/out.bin' kept changing while being read")
        assert (rig.sandbox.workspace / "b").read_text() == "here, too"
        torn = rig.until(lambda: rig.shown()["warnings"], "the warning")
        assert torn[0].startswith("'build/out.bin' was written while it was read")
        assert rig.shown()["pending"] is True
    rig.ok("flush")
    rig.converged()
    rig.until(lambda: not rig.shown()["warnings"], "the warning to go")
    assert rig.status_in("watching")["pending"] is False


@pytest.mark.parametrize("daemon", [True, False], ids=["daemon", "alone"])
def test_a_log(rig: Rig, *, daemon: bool) -> None:
    """What is only appended to is sent as it was at one instant, by one upload for each flush, which succeeds."""
    rig.configure({"sync.max_wait_seconds": 3600, "sync.debounce_seconds": 3600})
    rig.write("log", "a line\n")
    if daemon:
        rig.up()
    else:
        rig.ok("push")
    uploads = rig.count("upload", 200)
    with written_all_the_time(rig, "log", _APPENDER):
        rig.write("log", _LARGE)
        rig.ok("flush")
        assert (rig.workspace / "log").read_bytes().startswith((rig.sandbox.workspace / "log").read_bytes())
        assert (rig.sandbox.workspace / "log").stat().st_size >= len(_LARGE)
        assert rig.count("upload", 200) == uploads + 1
    rig.ok("flush")
    rig.converged()


# -- hidden changes

# A file's stamp is trusted from two seconds after its last write on.
BELIEVED_S = 2.5
_TRIES = 5


def test_a_mapping_that_is_closed(rig: Rig) -> None:
    """The last write to it changed no time; the close event reports it."""
    rig.configure({"sync.debounce_seconds": BELIEVED_S})
    path = rig.workspace / "f"
    path.write_bytes(b"0" * 100)
    rig.up()
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        os.fsync(file.fileno())
        for number in range(_TRIES):
            # Every write in one quiet time: the sync reads the file when its times are old enough to be trusted.
            memory[0:4] = b"%04d" % (2 * number)
            rig.write("other", str(number))
            rig.converged()
            before = path.stat()
            memory[0:4] = b"%04d" % (2 * number + 1)
            if path.stat().st_ctime_ns == before.st_ctime_ns:
                break  # else someone had the disk's caches written, and the times moved
        else:
            pytest.fail("a mapping's second write always moved the times")
    rig.converged()
