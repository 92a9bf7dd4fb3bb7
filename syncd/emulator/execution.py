"""Runs an uploaded `main.py` beside a workspace, as the service does: the only way to remove single files there.

The program was uploaded by the key's owner and runs as this user, without isolation: it does not get our environment,
its time and what is told of its output are limited, and its whole process group ends with it.
"""

from __future__ import annotations

import codecs
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from enum import StrEnum

MAX_LOG_BYTES = 8 * 1024**2


class RunStatus(StrEnum):
    """The status of an execution."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class Execution:
    """One run of `folder`/main.py, with `workspace` in AGENT_WORKSPACE; at most `timeout_s` long."""

    timeout_s = 300.0

    def __init__(self, folder: str, workspace: str) -> None:
        self.folder = folder
        self.status = RunStatus.PENDING
        self._workspace = workspace
        self._log = f"{folder}.log"
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self.run, name="emulator-execution")

    def start(self) -> None:
        """Run it, in a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Kill it if it still runs, with its child processes."""
        with self._lock:
            self._closing = True
            if self._process is not None and self._process.returncode is None:
                _kill(self._process)
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
    def ended(self) -> bool:
        return self.status in (RunStatus.COMPLETED, RunStatus.FAILED)

    def logs(self, cursor: int) -> tuple[str, int]:
        """The text from byte `cursor` on, and the cursor after it; characters are never split."""
        ended = self.ended
        data = b""
        # There is none before it begins, and if it has just been started again, the new one has another log.
        with suppress(FileNotFoundError), open(self._log, "rb") as file:
            file.seek(cursor)
            data = file.read(max(0, MAX_LOG_BYTES - cursor))
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data, final=ended)
        return text, cursor + len(data) - len(decoder.getstate()[0])

    def run(self) -> None:
        """Run it to its end."""
        code = 1
        with open(self._log, "ab", buffering=0) as log:
            try:
                code = self._run_program(log.fileno())
            except TimeoutError:
                log.write(f"\nmain.py was killed: still running after {self.timeout_s:g} s\n".encode())
            except OSError as error:
                log.write(f"could not run main.py: {error.strerror}\n".encode())
        self.status = RunStatus.FAILED if code else RunStatus.COMPLETED

    def _run_program(self, log: int) -> int:
        environment = {
            "AGENT_WORKSPACE": self._workspace,
            "HOME": self.folder,
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
        }
        with self._lock:
            if self._closing:
                return 1
            self.status = RunStatus.RUNNING
            self._process = process = subprocess.Popen(
                [sys.executable, "main.py"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(end, select.POLLIN)
            if not poll.poll(self.timeout_s * 1000):
                raise TimeoutError
        finally:
            os.close(end)
            # With its children, which might still change the workspace. It is not reaped yet, so its id is its own.
            _kill(process)
            code = process.wait()
        return code


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
