"""Shows something as it changes, until Ctrl-C: on a terminal drawn anew, to a pipe once for each change."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from syncd.cli.interruption import discard_stdout
from syncd.cli.options import CLOCK
from syncd.cli.output import is_screen, stdout_failure

Shown = TypeVar("Shown")

_REDRAW_S = 0.5


def watch(read: Callable[[], Shown], text: Callable[[Shown], str], *, as_json: bool) -> None:
    """Show the text of what is read, until a person ends it. With `as_json` a terminal is a pipe."""
    try:
        if as_json or not is_screen(sys.stdout):
            _print_changes(read, text)
        else:
            _redraw(lambda: text(read()))
    except KeyboardInterrupt:  # the usual end, in a write to a full pipe too
        discard_stdout()


def _print_changes(read: Callable[[], Shown], text: Callable[[Shown], str]) -> None:
    last: Shown | None = None
    while True:
        shown = read()
        if shown != last:
            print(text(shown), flush=True)
            last = shown
        if stdout_failure() is not None:  # nobody can read on
            return
        CLOCK.sleep(_REDRAW_S)


def _redraw(text: Callable[[], str]) -> None:
    """Draw on the whole terminal again and again, as watch(1) does. What was there scrolls up; the last screen stays.

    So it needs no settings of the terminal, and is right again after a resize, a Ctrl-Z and typed keys.
    """
    print("\n" * terminal_size()[1], end="")
    while True:
        lines = text().split("\n")[: terminal_size()[1] - 1]
        print("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J", end="", flush=True)
        CLOCK.sleep(_REDRAW_S)


def terminal_size() -> os.terminal_size:
    """The terminal's columns and rows; 80 and 24 if unknown."""
    columns, rows = os.get_terminal_size(sys.stdout.fileno())
    return os.terminal_size((columns or 80, rows or 24))
