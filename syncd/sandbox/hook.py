"""A person's own program, run beside the loop: without a shell, for so long at most, its words in our log.

It is never waited for: the loop hears of its end by a descriptor (pidfd_open(2)), and of its output by another.
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
from dataclasses import dataclass

from syncd.core.api_key import KEY_VARIABLE
from syncd.core.clock import Clock
from syncd.core.hardening import original_umask
from syncd.core.text import one_line

_log = logging.getLogger("syncd.hook")

TIMEOUT_S = 30.0
# After SIGTERM, before SIGKILL.
GRACE_S = 2.0
# Where the daemon itself has to end within five seconds.
_END_MS = 1000
_MOST_LINES = 100
_LONGEST_LINE = 300
_BLOCK = 1 << 16
# While the loop is busy nobody reads; the program should not have to wait for that (pipe(7): the most without rights).
_PIPE_BYTES = 1 << 20
# What is the daemon's own: the key, and the means to speak for it to the service manager.
_WITHHELD = frozenset(
    {KEY_VARIABLE, "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "JOURNAL_STREAM"}
)


@dataclass(frozen=True)
class HookEnd:
    """How a run ended; `failure` is empty where it went well."""

    failure: str = ""


class Hook:
    """One command, run now and then, never twice at once."""

    def __init__(self, command: tuple[str, ...], environ: Mapping[str, str], clock: Clock) -> None:
        self.command = command
        self._environ = environ
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._ends_s = 0.0
        self._asked_to_end = False
        self._pending = b""
        self._lines = 0
        self._hidden: Mapping[str, str] = {}

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self._process is not None

    def start(self, variables: Mapping[str, str], hidden: Mapping[str, str]) -> HookEnd | None:
        """Run it with these variables; how it ended, where it cannot even begin.

        `hidden` maps texts that no log may show, such as a server's URL, to what is shown instead.
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
                umask=original_umask(),  # its files are the person's, not the daemon's
            )
        except (OSError, ValueError) as failure:
            return HookEnd(f"cannot be started ({getattr(failure, 'strerror', None) or failure})")
        self._process, self._hidden = process, hidden
        self._ends_s, self._asked_to_end = self._clock.monotonic_s() + TIMEOUT_S, False
        self._pending, self._lines = b"", 0
        assert process.stdout is not None  # noqa: S101 - as asked for above
        os.set_blocking(process.stdout.fileno(), False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except OSError as failure:
            self.end()
            return HookEnd(f"cannot be waited for ({failure.strerror})")
        return None

    def filenos(self) -> list[int]:
        """What can be read once there is something to look at."""
        return [] if self._process is None else [self._pidfd, *([self._out] if self._out >= 0 else [])]

    @property
    def due_s(self) -> float | None:
        """The monotonic second at which it has to be ended."""
        return None if self._process is None else self._ends_s

    def look(self) -> HookEnd | None:
        """Read what it says, and end it when its time is over; how it ended, if it has."""
        process = self._process
        if process is None:
            return None
        self._read(_BLOCK)
        if not select.select([self._pidfd], [], [], 0)[0]:
            now_s = self._clock.monotonic_s()
            if now_s >= self._ends_s:
                self._signal(signal.SIGKILL if self._asked_to_end else signal.SIGTERM)
                self._asked_to_end, self._ends_s = True, now_s + GRACE_S
            return None
        if self._asked_to_end:
            self._signal(signal.SIGKILL)  # those of its group that did not hear: it is not reaped, so the group is its
        self._read(_PIPE_BYTES)
        self._say(self._pending)  # what it left running may hold the pipe open
        code = process.wait()
        self._close()
        if self._asked_to_end:
            return HookEnd(f"took longer than {TIMEOUT_S:.0f} s and was ended")
        if code < 0:
            return HookEnd(f"was ended by signal {-code}")
        return HookEnd(f"ended with {code}" if code else "")

    def end(self) -> None:
        """End it now, with all that it started in its group."""
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
    def _out(self) -> int:
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
        """Log its lines, at the end also one that has no end of line."""
        left = most_bytes
        while left > 0 and self._out >= 0:
            try:
                block = os.read(self._out, min(left, _BLOCK))
            except BlockingIOError:
                return
            if not block:
                self._say(self._pending)
                self._pending = b""
                if self._process is not None and self._process.stdout is not None:
                    self._process.stdout.close()  # at its end it could be read for ever
                return
            left -= len(block)
            *lines, self._pending = (self._pending + block).split(b"\n")
            for line in lines:
                self._say(line)
            if len(self._pending) > _BLOCK:
                self._say(self._pending)
                self._pending = b""

    def _say(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace")
        if not text.strip():
            return
        self._lines += 1
        if self._lines > _MOST_LINES:
            if self._lines == _MOST_LINES + 1:
                _log.info("on_sandbox_change says more, which is not kept")
            return
        for secret, shown in self._hidden.items():
            text = text.replace(secret, shown)
        _log.info("on_sandbox_change: %s", one_line(text, _LONGEST_LINE))
