"""A screen that stays in its place: only lines that changed are written again, so nothing scrolls or flickers.

The cursor stays visible below the last line, and there is no second screen: whatever ends the process, the last screen
stays. Only the echo of keys is switched off meanwhile, as an Enter would move the screen.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Self

_UP = "\x1b[{}A\r"
_END_OF_LINE = "\x1b[K"
_END_OF_SCREEN = "\x1b[J"
_CLEAR = "\x1b[H\x1b[2J"
_LFLAG = 3  # of what termios.tcgetattr returns


class Live:
    """What this program has drawn on the terminal, from `with` on to its end, by a signal too."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._size = (0, 0)
        self._moved = False
        self._modes: list[Any] | None = None
        self._handlers: dict[int, Any] = {}

    def show(self, lines: Sequence[str], size: tuple[int, int]) -> None:
        """Draw lines that fit in the width; `size` is the terminal's columns and rows. Too many lines are left out."""
        new = list(lines[: max(1, size[1] - 1)])
        text = ""
        if self._moved:
            self._moved, self._shown = False, []
        if self._shown and size != self._size:  # the terminal has wrapped the old lines as it liked
            text, self._shown = _CLEAR, []
        elif self._shown:
            text = _UP.format(len(self._shown))
        for number, line in enumerate(new):
            same = number < len(self._shown) and self._shown[number] == line
            text += "\n" if same else f"{line}{_END_OF_LINE}\n"
        if len(new) < len(self._shown):
            text += _END_OF_SCREEN
        if new != self._shown:
            sys.stdout.write(text)
            sys.stdout.flush()
        self._shown, self._size = new, size

    def __enter__(self) -> Self:
        for number, handler in (
            (signal.SIGTERM, self._end),
            (signal.SIGHUP, self._end),
            (signal.SIGCONT, self._go_on),
        ):
            self._handlers[number] = signal.signal(number, handler)
        self._quiet_keys()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._modes is not None and _in_front():
            # What was typed meanwhile was meant for nobody, least of all for the shell.
            termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, self._modes)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _quiet_keys(self) -> None:
        if _in_front():
            quiet = termios.tcgetattr(sys.stdin)
            self._modes = self._modes or [*quiet]  # the first ones: after a SIGCONT alone these are its own
            quiet[_LFLAG] &= ~termios.ECHO
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)

    def _end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's signature
        raise SystemExit(128 + number)

    def _go_on(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's signature
        """After a Ctrl-Z the shell has set the modes and written below the screen: draw anew, below that."""
        self._moved = True  # heard by the next `show`: this one may be half done
        self._quiet_keys()


def _in_front() -> bool:
    """Whether keys come from the terminal, and to this program: one in the background is stopped if it sets modes."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False
