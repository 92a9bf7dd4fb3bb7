"""A sandbox whose work the faults of a request change, and whose executions a test can hold back."""

from __future__ import annotations

import os
import signal
import subprocess
import tarfile
import tempfile
import threading
import zlib
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

from syncd.archive.extraction import remove_folder
from syncd.core.clock import Clock, SystemClock
from syncd.emulator import sandbox
from syncd.emulator.extract import ArchiveRefused
from syncd.emulator.sandbox import Execution, RunStatus, SandboxRecord
from tests.emulator.faults import Action, Changes
from tests.preloaded import AHEAD, Preloaded
from tools.conformance.profile import Profile

# One execution of so many starts a Python of its own, as the service does; the others are forked from one.
WHOLE_ONE_IN = 10
_FUTURE = b"from __future__ import annotations\n"  # nothing may stand before it
_AHEAD = "import time; time.time = lambda real=time.time: real() + {}\n"


class _Current(threading.local):
    changes: Changes = {}  # noqa: RUF012 - it is replaced, never changed


# The faults that change the work of the request that this thread answers.
CURRENT = _Current()


def extract_as_python(packed: BinaryIO, folder: str) -> None:
    """Extract as Python's tarfile does, with its `data` filter. ArchiveRefused: what was before the failure stays."""
    try:
        with tarfile.open(fileobj=packed, mode="r:gz", errors="surrogateescape") as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise ArchiveRefused(f"an entry could not be extracted: {error}") from error


def _copy(folder: str, into: str) -> None:
    """Copy all that is in a folder, with all kinds of files, into an empty one."""
    subprocess.run(["cp", "-a", f"{folder}/.", into], check=True, stdin=subprocess.DEVNULL)


class Sandbox(sandbox.EmulatedSandbox):
    """A sandbox with the differences of a profile, as `CURRENT` changes it."""

    execution_timeout_s = 300.0

    def __init__(self, folder: Path, record: SandboxRecord, profile: Profile, clock: Clock) -> None:
        super().__init__(folder, record)
        self.profile = profile
        self._clock = clock
        at_once = profile.executions_at_once
        self._slot: AbstractContextManager[object] = threading.Semaphore(at_once) if at_once else nullcontext()
        self._began_s = clock.wall_s() - clock.boottime_s()  # its own clock is never set
        self.holds = False  # True: executions stay pending
        self._executed = count(1)

    def fill(self, packed: BinaryIO) -> None:
        if self.profile.initialize_s:
            self._clock.sleep(self.profile.initialize_s)
        folder = str(self.workspace)
        kept = tempfile.mkdtemp(dir=self.folder) if self.profile.extraction == "whole" else ""
        if kept:
            _copy(folder, kept)
        try:
            if self.profile.initialize == "replaces" or Action.REPLACE in CURRENT.changes:
                self.empty()
            if self.profile.extraction == "python":
                extract_as_python(packed, folder)
            else:
                super().fill(packed)
        except (ArchiveRefused, OSError):
            if kept:
                self.empty()
                _copy(kept, folder)
            raise
        finally:
            if kept:
                remove_folder(kept)

    def new_execution(self, folder: str) -> Execution:
        changes = CURRENT.changes
        kind = HeldExecution if next(self._executed) % WHOLE_ONE_IN == 0 else PreloadedExecution
        execution = kind(
            folder,
            str(self.workspace),
            self._slot,
            self._clock,
            self._began_s,
            is_held=self.holds or Action.PENDING in changes,
            fails=Action.FAILED in changes,
        )
        execution.timeout_s = self.execution_timeout_s
        return execution

    def hold(self) -> None:
        """Keep executions that are requested from now on pending."""
        with self._executions_lock:
            self.holds = True

    def start_held(self) -> None:
        """Start the pending executions, and hold no more."""
        with self._executions_lock:
            self.holds = False
            for execution in self._executions.values():
                execution.may_begin.set()

    def wait(self) -> None:
        """Wait until all executions have ended, but for the pending ones."""
        for execution in list(self._executions.values()):
            if execution.may_begin.is_set():
                execution.wait()


class HeldExecution(Execution):
    """An execution that begins once it may."""

    def __init__(
        self,
        folder: str,
        workspace: str,
        slot: AbstractContextManager[object],
        clock: Clock,
        clock_began_s: float,
        *,
        is_held: bool,
        fails: bool,
    ) -> None:
        super().__init__(folder, workspace)
        self._slot = slot
        self._clock = clock
        self._clock_began_s = clock_began_s
        self._fails = fails
        self.may_begin = threading.Event()
        if not is_held:
            self.may_begin.set()

    def start(self) -> None:
        if self._fails:
            self.status = RunStatus.FAILED
        else:
            super().start()

    def run(self) -> None:
        self.may_begin.wait()
        with self._slot:
            super().run()

    def kill(self) -> None:
        super().kill()
        self.may_begin.set()

    @property
    def ahead_s(self) -> float:
        """The seconds by which the sandbox's clock is ahead of this machine's."""
        return self._clock_began_s + self._clock.boottime_s() - SystemClock().wall_s()

    def run_program(self, log: int) -> int:
        main = Path(self.folder, "main.py")
        first, future, rest = main.read_bytes().rpartition(_FUTURE)
        main.write_bytes(first + future + _AHEAD.format(self.ahead_s).encode() + rest)
        return super().run_program(log)


class PreloadedExecution(HeldExecution):
    """An execution in a process that has loaded syncd's programs."""

    def run_program(self, log: int) -> int:
        with self._lock:
            if self._closing:
                return 1
            self.status = RunStatus.RUNNING
            with open(os.devnull, "rb") as nothing:
                environment = {**self.environment, AHEAD: str(self.ahead_s)}
                process = Preloaded(["main.py"], environment, self.folder, (nothing.fileno(), log, log))
            self._process = process  # type: ignore[assignment]
        try:
            return process.wait(self.timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            self._kill_group(process.pid)
            with self._lock:
                self._process = None  # with its pipe: of an hour's executions there are thousands

    def kill(self) -> None:
        super().kill()
        with self._lock:
            if self._process is not None and self._process.returncode is None:
                self._process.kill()  # it may have no group yet

    def _kill_group(self, leader: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
