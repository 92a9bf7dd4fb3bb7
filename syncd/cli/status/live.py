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
    """The lines drawn on the terminal, from `with` to its end, by a signal too."""

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
        if self._shown and size != self._size:  # the terminal has wrapped the old lines
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
            (signal.SIGCONT, self._continue),
        ):
            self._handlers[number] = signal.signal(number, handler)
        self._switch_echo_off()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._modes is not None and _is_foreground():
            # Keys typed meanwhile are discarded: they were not meant for the shell.
            termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, self._modes)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _switch_echo_off(self) -> None:
        if _is_foreground():
            modes = termios.tcgetattr(sys.stdin)
            self._modes = self._modes or [*modes]  # the first ones: after a SIGCONT these may be its own
            modes[_LFLAG] &= ~termios.ECHO
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, modes)

    def _end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's signature
        raise SystemExit(128 + number)

    def _continue(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's signature
        """Draw anew after a Ctrl-Z: the shell has set the modes and written below the screen."""
        self._moved = True  # for the next `show`: this one may be half done
        self._switch_echo_off()


def _is_foreground() -> bool:
    """True if this program reads the terminal's keys: one in the background is stopped if it sets modes."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False
