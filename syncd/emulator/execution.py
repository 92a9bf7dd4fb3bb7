"""Runs an uploaded `main.py` beside a workspace, as the service does: the only way to remove single files there.

The program was uploaded by the key's owner and runs as this user, without isolation: it does not get our environment,
its output and its time are limited, and its whole process group ends with it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from enum import StrEnum
from math import inf

from syncd.core.clock import Clock

MAX_LOG_BYTES = 8 * 1024**2


class RunStatus(StrEnum):
    """The status of an execution."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class Execution:
    """One run of `folder`/main.py, with `workspace` in AGENT_WORKSPACE; at most `timeout_s` long.

    `begins_s` is the moment at which it begins, in the clock's monotonic seconds; infinite: when `begin` is called.
    """

    def __init__(self, folder: str, workspace: str, clock: Clock, timeout_s: float, begins_s: float = -inf) -> None:
        self.folder = folder
        self.status = RunStatus.PENDING
        self._workspace = workspace
        self._clock = clock
        self._timeout_s = timeout_s
        self._begins_s = begins_s
        self._log = f"{folder}.log"
        self._logged_bytes = 0
        self._may_change = threading.Condition()
        self._closing = False
        self._stop_read, self._stop_write = -1, -1
        self._thread = threading.Thread(target=self._run, name="emulator-execution")

    def start(self) -> None:
        """Make it pending, and run it as soon as it is due."""
        self._clear_log()
        self._stop_read, self._stop_write = os.pipe()
        self._thread.start()

    def fail(self) -> None:
        """End it as failed, without running it; instead of `start`."""
        self._clear_log()
        self.status = RunStatus.FAILED

    def begin(self) -> None:
        """Run it now, if it is pending."""
        with self._may_change:
            self._begins_s = -inf
            self._may_change.notify()

    def check_clock(self) -> None:
        """Run it if it is due now: its thread measures real time, and a clock may go otherwise."""
        with self._may_change:
            self._may_change.notify()

    def close(self) -> None:
        """Kill it if it still runs, with its child processes; a pending one never begins."""
        with self._may_change:
            self._closing = True
            if self._stop_write >= 0:
                os.write(self._stop_write, b"x")
            self._may_change.notify()
        self.wait()

    def wait(self) -> None:
        """Wait until it has ended."""
        if self._thread.ident is not None:
            self._thread.join()

    def delete_log(self) -> None:
        """Delete its output, after its end."""
        with suppress(FileNotFoundError):
            os.unlink(self._log)

    @property
    def due(self) -> bool:
        """True if it has begun, or begins now."""
        return self._begins_s <= self._clock.monotonic_s()

    @property
    def ended(self) -> bool:
        return self.status in (RunStatus.COMPLETED, RunStatus.FAILED)

    def logs(self, cursor: int) -> tuple[str, int]:
        """The text from byte `cursor` on, and the cursor after it; characters are never split."""
        ended = self.ended
        data = b""
        # If it has just been started again, the new one has another log.
        with suppress(FileNotFoundError), open(self._log, "rb") as file:
            file.seek(cursor)
            data = file.read()
        if not ended:
            data = data[: _whole_characters(data)]
        return data.decode("utf-8", "replace"), cursor + len(data)

    def _run(self) -> None:
        try:
            code = self._run_program() if self._wait_until_due() else 1
        except OSError as error:
            self._write(f"could not run main.py: {error.strerror}\n".encode())
            code = 1
        self.status = RunStatus.FAILED if code else RunStatus.COMPLETED
        with self._may_change:
            # A sandbox knows hundreds of ended executions, and a process has a limit of descriptors.
            os.close(self._stop_read)
            os.close(self._stop_write)
            self._stop_read, self._stop_write = -1, -1

    def _wait_until_due(self) -> bool:
        """True when it is due, False if it is closed first."""
        with self._may_change:
            while not self._closing and not self.due:
                left_s = self._begins_s - self._clock.monotonic_s()
                self._may_change.wait(min(left_s, threading.TIMEOUT_MAX) if left_s < inf else None)
            return not self._closing

    def _run_program(self) -> int:
        environment = {
            "AGENT_WORKSPACE": self._workspace,
            "HOME": self.folder,
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
        }
        self.status = RunStatus.RUNNING
        with subprocess.Popen(
            [sys.executable, "main.py"],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                return self._supervise(process)
            finally:
                _kill(process)

    def _supervise(self, process: subprocess.Popen[bytes]) -> int:
        assert process.stdout is not None  # noqa: S101 - opened with a pipe
        output = process.stdout.fileno()
        ended = os.pidfd_open(process.pid)
        deadline_s = self._clock.monotonic_s() + self._timeout_s
        watched = [output, ended, self._stop_read]
        try:
            while True:
                left_s = deadline_s - self._clock.monotonic_s()
                ready, _, _ = select.select(watched, [], [], max(0.0, left_s))
                if output in ready and not self._copy(output):
                    watched.remove(output)
                elif ended in ready:
                    _kill(process)
                    self._drain(output)
                    return process.wait()
                if self._stop_read in ready or left_s <= 0:
                    reason = "stopped" if self._stop_read in ready else f"still running after {self._timeout_s:g} s"
                    self._write(f"\nmain.py was killed: {reason}\n".encode())
                    return 1
        finally:
            os.close(ended)

    def _drain(self, output: int) -> None:
        while self._logged_bytes < MAX_LOG_BYTES and select.select([output], [], [], 0)[0] and self._copy(output):
            pass

    def _copy(self, output: int) -> bool:
        data = os.read(output, 64 * 1024)
        self._write(data[: max(0, MAX_LOG_BYTES - self._logged_bytes)])
        return bool(data)

    def _clear_log(self) -> None:
        with open(self._log, "wb"):
            pass

    def _write(self, data: bytes) -> None:
        with open(self._log, "ab") as file:
            file.write(data)
        self._logged_bytes += len(data)


def _kill(process: subprocess.Popen[bytes]) -> None:
    # With its children, which hold the pipe and might still change the workspace.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _whole_characters(data: bytes) -> int:
    """The length of the longest beginning of `data` that ends with a whole UTF-8 character."""
    for tail in range(1, min(4, len(data)) + 1):
        byte = data[-tail]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - tail if needed > tail else len(data)
        if byte < 0x80:
            break
    return len(data)
