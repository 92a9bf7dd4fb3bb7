"""The command as other programs see it: a process with output, an exit code and a place in /proc."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import pytest

from syncd.core.clock import SystemClock
from tests.preloaded import Preloaded, may_be_preloaded

CLOCK = SystemClock()
SYNCD = (sys.executable, "-m", "syncd")
# The promise is 5 s from signal to exit.
STOP_S = 5.0
# Only a test that fails waits for so long. A busy machine may do nothing for many seconds.
TIMEOUT_S = 60.0
# A condition is looked at again so soon, but what takes long, as it starts a process, only in a part of the time.
_POLL_S, _POLL_SHARE, _LONGEST_POLL_S = 0.03, 4, 1.0
# The most that counts between two polls: a virtual machine may stand still for a minute, and so does the daemon in it.
_STALL_S = 2.0
# Root reads everything unless this right is taken away.
AS_ANYONE = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    if os.geteuid() == 0
    else ()
)


Found = TypeVar("Found")


def works(*prefix: str) -> bool:
    """True if a program can be run with this prefix."""
    try:
        return subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


as_anyone = pytest.mark.skipif(not works(*AS_ANYONE), reason="root without setpriv(1) reads all")


def wait_until(condition: Callable[[], Found], failed: Callable[[], str]) -> Found:
    """Wait for the condition to hold, and return its value. Fails with that text after `TIMEOUT_S`."""
    waited_s, began_s = 0.0, CLOCK.monotonic_s()
    while not (found := condition()):
        assert waited_s < TIMEOUT_S, f"waited {TIMEOUT_S:g} s for {failed()}"
        CLOCK.sleep(min(max(_POLL_S, _POLL_SHARE * (CLOCK.monotonic_s() - began_s)), _LONGEST_POLL_S))
        ended_s = CLOCK.monotonic_s()
        waited_s += min(ended_s - began_s, _STALL_S)
        began_s = ended_s
    return found


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    args: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    @property
    def told(self) -> str:
        """What stderr has but for the lines of progress, which only a slow command prints."""
        return "".join(line for line in self.err.splitlines(keepends=True) if not line.endswith(" …\n"))


def run_command(args: Sequence[str], env: Mapping[str, str], cwd: Path, prefix: Sequence[str] = ()) -> Finished:
    """Run `syncd ARGS` to its end, for which a test's own time limit waits."""
    started_s = CLOCK.monotonic_s()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = _started(args, env, cwd, out, err, prefix)
        try:
            code = process.wait()
        finally:
            process.kill()
        seconds = CLOCK.monotonic_s() - started_s
        out.seek(0)
        err.seek(0)
        return Finished(tuple(args), code, os.fsdecode(out.read()), os.fsdecode(err.read()), seconds)


def _started(
    args: Sequence[str], env: Mapping[str, str], cwd: Path, out: IO[bytes], err: IO[bytes], prefix: Sequence[str]
) -> Preloaded | subprocess.Popen[bytes]:
    with open(os.devnull, "rb") as nothing:
        return start([*prefix, *SYNCD, *args], env, cwd, (nothing.fileno(), out.fileno(), err.fileno()))


def start(
    command: Sequence[str | bytes], env: Mapping[str, str], cwd: Path, standard: tuple[int, int, int]
) -> Preloaded | subprocess.Popen[bytes]:
    """Start a command with these descriptors as stdin, stdout and stderr."""
    if tuple(command[: len(SYNCD)]) == SYNCD and may_be_preloaded(env):
        return Preloaded(["syncd", *(os.fsdecode(each) for each in command[len(SYNCD) :])], env, cwd, standard)
    stdin, stdout, stderr = standard
    return subprocess.Popen(
        command, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
    )


class Running:
    """A running command. Its output goes to files, as an unread pipe would block it."""

    def __init__(
        self, args: Sequence[str], env: Mapping[str, str], cwd: Path, output: Path, prefix: Sequence[str] = ()
    ):
        self._out, self._err = output.with_suffix(".out"), output.with_suffix(".err")
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self._process = _started(args, env, cwd, out, err, prefix)
        self.pid = self._process.pid
        self.shown_arguments = b""
        while not self.shown_arguments and self.code is None:  # for an instant after exec the kernel shows none
            self.shown_arguments = self.arguments()

    @property
    def out(self) -> str:
        """Return what it wrote to stdout so far."""
        return self._out.read_text(encoding="utf-8", errors="surrogateescape")

    @property
    def err(self) -> str:
        """Return what it wrote to stderr so far."""
        return self._err.read_text(encoding="utf-8", errors="surrogateescape")

    @property
    def code(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait until it ends by itself, and return its exit code."""
        return self._process.wait(TIMEOUT_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, and return the exit code; tests of the documented time measure it themselves."""
        self.shown_arguments += self.arguments()
        if self.code is None:
            self.send(number)
        return self.wait()

    def kill(self) -> None:
        """Send SIGKILL."""
        self.shown_arguments += self.arguments()
        self._process.kill()
        self._process.wait()

    def arguments(self) -> bytes:
        """Return its argument list, as any user can read it; empty once it ended."""
        return self._proc("cmdline")

    def peak_kib(self) -> int:
        """Return its peak resident memory."""
        return self._number(self._proc("status"), b"VmHWM:")

    def resident_kib(self) -> int:
        """Return its resident memory."""
        return self._number(self._proc("status"), b"VmRSS:")

    def cpu_s(self) -> float:
        """Return its CPU time in seconds."""
        fields = self._proc("stat").rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wakeups(self) -> int:
        """Return how often one of its threads was woken."""
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            total += self._number(self._proc(f"task/{task}/status"), b"\nvoluntary_ctxt_switches:")
        return total

    def _proc(self, name: str) -> bytes:
        try:
            return Path(f"/proc/{self.pid}/{name}").read_bytes()
        except OSError:
            return b""

    @staticmethod
    def _number(text: bytes, label: bytes) -> int:
        return int(text.partition(label)[2].split()[0])
