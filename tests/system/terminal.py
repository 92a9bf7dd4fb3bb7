"""A program on its own terminal, and its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pyte

from tests.preloaded import Preloaded
from tests.system.command import CLOCK, STOP_S, TIMEOUT_S, start

COLUMNS, ROWS = 80, 40


class Terminal:
    """Runs one program, and has its present or last screen, and all that was `written` to it."""

    def __init__(self, columns: int = COLUMNS, rows: int = ROWS) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.written = b""
        self._stream = pyte.ByteStream(self.screen)
        self._size = struct.pack("HHHH", rows, columns, 0, 0)
        self._process: subprocess.Popen[bytes] | Preloaded | None = None
        self._ours = -1
        self._undrawn: list[bytes] = []

    @property
    def text(self) -> str:
        """Return the screen's lines."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def show(self, text: str) -> None:
        """Show a line that no program wrote, such as the shell's prompt."""
        self._stream.feed(text.replace("\n", "\r\n").encode())

    def start(self, args: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        """Start a program on this terminal."""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, self._size)
        self._process = start(args, env, cwd, (theirs, theirs, theirs))
        os.close(theirs)

    def type(self, text: str) -> None:
        """Type keys."""
        os.write(self._ours, text.encode())

    def until(self, seen: Callable[[str], object], what: str, timeout_s: float = TIMEOUT_S) -> None:
        """Read until the screen shows the text. Fails with the screen after the timeout."""
        deadline_s = CLOCK.monotonic_s() + timeout_s
        while not seen(self.text):
            left_s = deadline_s - CLOCK.monotonic_s()
            if left_s <= 0 or not self._read(left_s):
                raise AssertionError(f"the screen never showed {what}:\n{self.text}")

    def answer(self, question: str, answer: str) -> None:
        """Wait for a question with these words on its last lines, and type the answer."""
        self.asked(question)
        self.type(f"{answer}\r")

    def asked(self, question: str) -> None:
        """Wait for a question, and for the blank after it, which is written by itself."""

        def is_asked(text: str) -> bool:
            last = text.rpartition("\n")[2]
            waits = last.endswith(":") and self.screen.cursor.x > len(last)
            return waits and question in "\n".join(text.splitlines()[-2:])

        self.until(is_asked, question)

    def finish(self) -> int:
        """Read to the program's end, and return its exit code."""
        assert self._process is not None
        deadline_s = CLOCK.monotonic_s() + TIMEOUT_S
        while self._read(max(0.0, deadline_s - CLOCK.monotonic_s())):
            pass
        code = self._process.wait(max(0.1, deadline_s - CLOCK.monotonic_s()))
        os.close(self._ours)
        self._process = None
        return code

    def send(self, number: signal.Signals) -> None:
        """Send the program a signal: a Ctrl-C sends it SIGINT, the end of its terminal SIGHUP."""
        assert self._process is not None
        self._process.send_signal(number)

    def close(self) -> None:
        """End the program as Ctrl-C does, or by a kill; the screen stays."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._ours)
        self._process = None

    def _read(self, timeout_s: float) -> bool:
        """Read to the next place where a line is drawn anew: what is read late has shown each of its screens, too."""
        if not self._undrawn:
            if not select.select([self._ours], [], [], timeout_s)[0]:
                return False
            with suppress(OSError):  # EIO: the program has ended
                self._undrawn = [*filter(None, re.split(rb"(?=\r)", os.read(self._ours, 65_536)))]
        if not self._undrawn:
            return False
        data = self._undrawn.pop(0)
        self._stream.feed(data)
        self.written += data
        return True
