"""Runs a person's own program beside the loop: without a shell, with a time limit, its output in the log.

The loop never waits for it: one descriptor becomes readable at its end (pidfd_open(2)), another with its output.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import signal
import subprocess
from collections.abc import Mapping

from msgspec import Struct

from syncd.core.api_key import KEY_VARIABLE
from syncd.core.clock import Clock
from syncd.core.hardening import original_umask
from syncd.core.text import one_line

_log = logging.getLogger("syncd.hook")

# Between SIGTERM and SIGKILL.
GRACE_S = 2.0
# The daemon itself has to end within five seconds.
_END_MS = 1000
_MOST_LINES = 100
_LONGEST_LINE = 300
_BLOCK = 1 << 16
# A busy loop does not read, and the program should not wait for it (pipe(7): the maximum without privileges).
_PIPE_BYTES = 1 << 20
# For the daemon alone: the key, and what it needs to notify the service manager.
_WITHHELD = frozenset(
    {KEY_VARIABLE, "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "JOURNAL_STREAM"}
)


class HookResult(Struct, frozen=True):
    """The result of a run; `failure` is empty if it succeeded."""

    failure: str = ""


class Hook:
    """One command, of which at most one run is active, for `timeout_s` at most. Logs call it `name`.

    Without a command it is never started.
    """

    def __init__(self, name: str, timeout_s: float, environ: Mapping[str, str], clock: Clock) -> None:
        self.command: tuple[str, ...] = ()  # of the next run
        self._name = name
        self._timeout_s = timeout_s
        self._environ = environ
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._ends_s = 0.0
        self._terminating = False
        self._pending = b""
        self._lines = 0
        self._hidden: Mapping[str, str] = {}

    @property
    def is_configured(self) -> bool:
        """True if it has a command."""
        return bool(self.command)

    @property
    def running(self) -> bool:
        """True if it runs now."""
        return self._process is not None

    def start(self, variables: Mapping[str, str], hidden: Mapping[str, str]) -> HookResult | None:
        """Run the command with these variables; return the failure if it cannot be started.

        `hidden` maps texts that no log may show, such as a server's URL, to their replacements.
        """
        home = os.path.expanduser("~")
        environ = {name: value for name, value in self._environ.items() if name not in _WITHHELD}
        try:
            process = subprocess.Popen(
                [os.path.expanduser(self.command[0]), *self.command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=home if os.path.isdir(home) else "/",
                env={**environ, **variables},
                start_new_session=True,
                umask=original_umask(),  # its files get the person's permissions, not the daemon's
            )
        except (OSError, ValueError) as failure:
            return HookResult(f"cannot be started ({getattr(failure, 'strerror', None) or failure})")
        self._process, self._hidden = process, hidden
        self._ends_s, self._terminating = self._clock.monotonic_s() + self._timeout_s, False
        self._pending, self._lines = b"", 0
        assert process.stdout is not None  # noqa: S101 - a pipe, as requested above
        os.set_blocking(process.stdout.fileno(), False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except OSError as failure:
            self.terminate()
            return HookResult(f"cannot be waited for ({failure.strerror})")
        return None

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when `poll` has something to do."""
        return [] if self._process is None else [self._pidfd, *([self._output_fd] if self._output_fd >= 0 else [])]

    @property
    def due_s(self) -> float | None:
        """The monotonic second at which its time is over; None if it does not run."""
        return None if self._process is None else self._ends_s

    def poll(self) -> HookResult | None:
        """Read its output, and signal it when its time is over; return its result if it has ended."""
        process = self._process
        if process is None:
            return None
        self._read(_BLOCK)
        if not select.select([self._pidfd], [], [], 0)[0]:
            now_s = self._clock.monotonic_s()
            if now_s >= self._ends_s:
                self._signal(signal.SIGKILL if self._terminating else signal.SIGTERM)
                self._terminating, self._ends_s = True, now_s + GRACE_S
            return None
        if self._terminating:
            self._signal(signal.SIGKILL)  # for the rest of its group, whose id is still its own, as it is not reaped
        self._read(_PIPE_BYTES)
        self._log_line(self._pending)  # a process that it left running may hold the pipe open
        code = process.wait()
        self._close()
        if self._terminating:
            return HookResult(f"took longer than {self._timeout_s:.0f} s and was ended")
        if code < 0:
            return HookResult(f"was ended by signal {-code}")
        return HookResult(f"ended with {code}" if code else "")

    def terminate(self) -> None:
        """End it now, with all processes of its group."""
        process = self._process
        if process is None:
            return
        self._signal(signal.SIGTERM)
        if self._pidfd >= 0:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(_END_MS)
        self._signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        self._close()

    @property
    def _output_fd(self) -> int:
        pipe = self._process.stdout if self._process else None
        return -1 if pipe is None or pipe.closed else pipe.fileno()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, number)

    def _close(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._process, self._pidfd = None, -1

    def _read(self, most_bytes: int) -> None:
        """Log its lines, at the end also one without a newline."""
        left = most_bytes
        while left > 0 and self._output_fd >= 0:
            try:
                block = os.read(self._output_fd, min(left, _BLOCK))
            except BlockingIOError:
                return
            if not block:
                self._log_line(self._pending)
                self._pending = b""
                if self._process is not None and self._process.stdout is not None:
                    self._process.stdout.close()  # at its end it would stay readable
                return
            left -= len(block)
            *lines, self._pending = (self._pending + block).split(b"\n")
            for line in lines:
                self._log_line(line)
            if len(self._pending) > _BLOCK:
                self._log_line(self._pending)
                self._pending = b""

    def _log_line(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace")
        if not text.strip():
            return
        self._lines += 1
        if self._lines > _MOST_LINES:
            if self._lines == _MOST_LINES + 1:
                _log.info("%s prints more, which is not logged", self._name)
            return
        for secret, shown in self._hidden.items():
            text = text.replace(secret, shown)
        _log.info("%s: %s", self._name, one_line(text, _LONGEST_LINE))
