"""Lays out text for a terminal: wrapped to a width, aligned in columns, a bar with its figures, drawn as it changes.

A line has colours, which `click.echo` takes out for a pipe. The words carry the meaning and the colours only help, so
that it reads the same there.
"""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import tty
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import TextIO, TypeVar

import click

from syncd.cli.interruption import discard_stdout
from syncd.cli.options import CLOCK
from syncd.cli.output import is_screen, may_colour, stdout_failure, terminal_size
from syncd.core.text import countdown, counted, duration, shown_path, size
from syncd.sync.status_document import Progress

_COMMAND = re.compile(r"`[^`]+`")
_NO_BREAK = "\0"  # no text that is shown has it
_LEAST_COLUMNS = 8
_LEAST_BAR, _LONGEST_BAR = 6, 30
_GAP = "  "
_REDRAW_S = 0.5
_LEAST_TOLD = 3  # lines of a screen, of which one is told from; a lower one has none to spare

Shown = TypeVar("Shown")


class Tone(Enum):
    """The role of a piece of text, which sets its colour."""

    PLAIN = "plain"
    STRONG = "strong"
    GOOD = "good"
    BUSY = "busy"
    ATTENTION = "attention"
    BAD = "bad"


# Of the eight colours that every terminal has; its text colour, white, black and dim are not used, as the background
# is unknown.
_COLOURS = {Tone.GOOD: "green", Tone.BUSY: "cyan", Tone.ATTENTION: "yellow", Tone.BAD: "red"}


MARK, TURNING = "●", "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FULL, _EMPTY = "━", "─"
# For other encodings, and the kernel's own console, whose font has none of these.
_PLAIN = str.maketrans(f"{MARK}{_FULL}{_EMPTY}{TURNING}", "*#-" + "|/-\\|/-\\|/")


def styled(text: str, tone: Tone) -> str:
    """The text with the colour of its role, for a terminal of 16 colours."""
    return text if tone is Tone.PLAIN else click.style(text, fg=_COLOURS.get(tone), bold=True)


def wrapped(text: str, width: int, first: str, indent: int, tone: Tone = Tone.PLAIN) -> list[str]:
    """The text after `first`, wrapped to lines of at most `width` columns, the later ones indented.

    A `command` in it stays on one line, to be copied.
    """
    used, room = columns(click.unstyle(first)), max(_LEAST_COLUMNS, width - indent)
    text = _COMMAND.sub(
        lambda found: found[0].replace(" ", _NO_BREAK) if columns(found[0]) <= room else found[0], shown_path(text)
    )
    words = [word.replace(_NO_BREAK, " ") for word in text.split(" ")]
    head, *rest = _rows(words, max(_LEAST_COLUMNS, width - used), room)
    return [f"{first}{styled(head, tone)}".rstrip(), *(" " * indent + styled(row, tone).rstrip() for row in rest)]


def _rows(words: Iterable[str], first_columns: int, columns_each: int) -> Iterator[str]:
    row, room, is_begun = "", first_columns, False
    for word in words:
        longer = f"{row} {word}" if is_begun else word
        is_begun = True
        if columns(longer) <= room:
            row = longer
            continue
        if row:
            yield row
            room = columns_each
        row = word
        while columns(row) > room:  # a path or URL continues on the next line
            head = cut(row, room)
            yield head
            row, room = row[len(head) :], columns_each
    yield row


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines: each column is as wide as its widest cell, and the last one is free."""
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    return [
        _GAP.join(cell + " " * (width - columns(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def bar(progress: Progress, width: int) -> str:
    """A bar with its figures in at most `width` columns; the least important figure is left out first.

    The total must be known. A figure that is not known yet keeps its place, so that nothing moves.
    """
    shown = ""
    for figure in _figures(progress):
        if len(shown) + len(_GAP) + len(figure) + _LEAST_BAR > width:
            break
        shown += _GAP + figure
    room = max(0, min(_LONGEST_BAR, width - len(shown)))
    full = min(room, room * progress.done_bytes // progress.total_bytes)
    return f"{styled(_FULL * full, Tone.GOOD)}{_EMPTY * (room - full)}{shown}".rstrip()


def figures(progress: Progress) -> str:
    """The figures without a bar, for a log, and where the total is unknown."""
    return ", ".join(" ".join(figure.split()) for figure in _figures(progress) if figure.strip())


def _figures(progress: Progress) -> Iterator[str]:
    rate, left_s = progress.bytes_per_second, progress.seconds_left
    speed = "" if rate is None else f"{size(int(rate))}/s"
    if not progress.total_bytes:
        yield size(progress.done_bytes)
        yield speed
        return
    yield f"{min(100, 100 * progress.done_bytes // progress.total_bytes):3}%"
    yield f"{'' if left_s is None else f'{countdown(left_s)} left':>9}"
    yield f"{size(progress.done_bytes):>9} of {size(progress.total_bytes)}"
    yield f"{speed:>11}"
    if progress.total_files is not None:
        files = counted(progress.total_files, "file")
        yield f"{progress.done_files or 0:>{files.index(' ')},} of {files}"


def next_attempt(attempt: int, wait_s: float, gives_up_in_s: float | None) -> str:
    """The plan after a failure: `attempt 6 in 9 s, gives up in 4:40`."""
    when = f"in {duration(wait_s + 0.999)}" if wait_s > 0 else "now"
    return f"attempt {attempt} {when}" + ("" if gives_up_in_s is None else f", gives up in {countdown(gives_up_in_s)}")


def cut(text: str, room: int) -> str:
    """As much of the text as fits in so many columns, but at least a letter."""
    end = min(len(text), room)
    while end > 1 and columns(text[:end]) > room:
        end -= 1
    return text[:end]


def columns(text: str) -> int:
    """The text's width in columns of a terminal: letters of East Asia take two."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):  # it is drawn on the letter before it
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1


def written(line: str, stream: TextIO) -> str:
    """The line as it goes to this stream: in characters that it can show, and with colours on a terminal with some."""
    if (stream.encoding or "").lower().replace("-", "") != "utf8" or os.environ.get("TERM") == "linux":
        line = line.translate(_PLAIN)
    return line if stream.isatty() and may_colour() else click.unstyle(line)


def keep_showing(read: Callable[[], Shown], text: Callable[[Shown], str], *, as_json: bool) -> None:
    """Show the text of what is read, until a person ends it: drawn anew on a terminal, to a pipe once for each change.

    With `as_json` a terminal is a pipe.
    """
    try:
        if as_json or not is_screen(sys.stdout):
            _print_changes(read, text)
        else:
            _redraw(lambda: text(read()))
    except KeyboardInterrupt:  # the usual end, in a write to a full pipe too
        discard_stdout()


def _print_changes(read: Callable[[], Shown], text: Callable[[Shown], str]) -> None:
    last: Shown | None = None
    reader = select.poll()
    reader.register(1, 0)  # for errors alone, as of a pipe whose reader has ended
    while True:
        shown = read()
        if shown != last:
            print(text(shown), flush=True)
            last = shown
        if stdout_failure() is not None or CLOCK.poll(reader, _REDRAW_S):  # nobody can read on
            return


def _redraw(text: Callable[[], str]) -> None:
    """Draw on the whole terminal again and again, as watch(1) does, until `q` is typed or a signal comes.

    What was there scrolls up; the last screen stays. It is right again after a resize, a Ctrl-Z and typed keys. On a
    very narrow terminal a line is cut, as one more would scroll the first away.
    """
    print("\n" * terminal_size()[1], end="")
    with _typed_keys() as typed:
        while True:
            lines = _fitting(text().split("\n"), terminal_size()[1] - 1)
            screen = "".join(f"{line}\x1b[K\n" for line in lines)
            print(f"\x1b[H\x1b[?7l{screen}\x1b[J\x1b[?7h", end="", flush=True)
            if b"q" in typed(_REDRAW_S):
                return


def _fitting(lines: list[str], room: int) -> list[str]:
    """As many of the lines as there is room for; where some have none, the last line says so."""
    if len(lines) <= room or room < _LEAST_TOLD:
        return lines[:room]
    return [*lines[: room - 1], f"  and {counted(len(lines) - room + 1, 'more line')}, on a terminal with more rows"]


@contextmanager
def _typed_keys() -> Iterator[Callable[[float], bytes]]:
    """Give what waits so many seconds for keys on the terminal, and returns them: each at once, and unseen.

    The terminal's settings are made anew for each wait, as a shell has its own after a Ctrl-Z; at the end they are as
    before.
    """
    descriptor, poll = sys.stdin.fileno(), select.poll()
    before = termios.tcgetattr(descriptor) if os.isatty(descriptor) else None
    poll.register(descriptor, select.POLLIN)

    def takes_keys() -> bool:
        if before is None or not _is_foreground(descriptor):  # where it is not, each use of the terminal would stop it
            return False
        tty.setcbreak(descriptor, termios.TCSANOW)
        return True

    def typed(seconds: float) -> bytes:
        if not takes_keys():
            CLOCK.sleep(seconds)
            return b""
        return os.read(descriptor, 64) if CLOCK.poll(poll, seconds) else b""

    takes_keys()  # before anything is shown: what is typed at once is no part of the screen
    try:
        yield typed
    finally:
        if before is not None and _is_foreground(descriptor):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)


def _is_foreground(terminal: int) -> bool:
    """False for a job in the background of the terminal's shell."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # it is no shell's, or not any more
        return True
