"""Lays out text for a terminal: wrapped to a width, aligned in columns, a bar with its figures.

A line has colours, which `click.echo` takes out for a pipe. The words carry the meaning and the colours only help, so
that it reads the same there.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from enum import Enum
from typing import TextIO

import click

from syncd.cli.output import may_colour
from syncd.core.text import countdown, counted, duration, shown_path, size
from syncd.sync.status_document import Progress

_COMMAND = re.compile(r"`[^`]+`")
_NO_BREAK = "\0"  # no text that is shown has it
_LEAST_COLUMNS = 8
_LEAST_BAR, _LONGEST_BAR = 6, 30
_GAP = "  "


class Tone(Enum):
    """The role of a piece of text, with its colour, of the eight that every terminal has.

    Its text colour, white, black and dim are not used, as the background is unknown.
    """

    PLAIN = ""
    STRONG = "bold"
    GOOD = "green"
    BUSY = "cyan"
    ATTENTION = "yellow"
    BAD = "red"


MARK, TURNING = "●", "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FULL, _EMPTY = "━", "─"


def styled(text: str, tone: Tone) -> str:
    """The text with the colour of its role, for a terminal of 16 colours."""
    colour = None if tone is Tone.STRONG else tone.value
    return text if tone is Tone.PLAIN else click.style(text, fg=colour, bold=True)


def wrapped(text: str, width: int, first: str, indent: int, tone: Tone = Tone.PLAIN) -> list[str]:
    """The text after `first`, wrapped to lines of at most `width` letters, the later ones indented.

    A `command` in it stays on one line, to be copied.
    """
    before = click.unstyle(first)
    rows = textwrap.wrap(
        _COMMAND.sub(lambda found: found[0].replace(" ", _NO_BREAK), shown_path(text)),
        max(width, indent + _LEAST_COLUMNS),
        initial_indent=before,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )
    head, *rest = (row.replace(_NO_BREAK, " ") for row in rows or [before])
    return [
        f"{first}{styled(head[len(before) :], tone)}".rstrip(),
        *(f"{row[:indent]}{styled(row[indent:], tone)}" for row in rest),
    ]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines: each column is as wide as its widest cell, and the last one is free."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_GAP.join(map(str.ljust, row, widths)).rstrip() for row in rows]


def bar(progress: Progress, width: int) -> str:
    """A bar with its figures in at most `width` columns; the least important figure goes first.

    A figure that is not known yet keeps its place, so that nothing moves. Of an unknown total there are figures alone.
    """
    rate, left_s, total_bytes = progress.bytes_per_second, progress.seconds_left, progress.total_bytes
    speed = f"{'' if rate is None else f'{size(int(rate))}/s':>11}"
    if not total_bytes:
        return f"{size(progress.done_bytes)}{_GAP}{speed}"[: max(0, width)].rstrip()
    figures = [
        f"{min(100, 100 * progress.done_bytes // total_bytes):3}%",
        f"{'' if left_s is None else f'{countdown(left_s)} left':>9}",
        f"{size(progress.done_bytes):>9} of {size(total_bytes)}",
        speed,
    ]
    if progress.total_files is not None:
        files = counted(progress.total_files, "file")
        figures.append(f"{progress.done_files or 0:>{files.index(' ')},} of {files}")
    shown = ""
    for figure in figures:
        if len(shown) + len(_GAP) + len(figure) + _LEAST_BAR > width:
            break
        shown += _GAP + figure
    room = max(0, min(_LONGEST_BAR, width - len(shown)))
    full = min(room, room * progress.done_bytes // total_bytes)
    return f"{styled(_FULL * full, Tone.GOOD)}{_EMPTY * (room - full)}{shown}".rstrip()


def next_attempt(attempt: int, wait_s: float, gives_up_in_s: float | None = None) -> str:
    """The plan after a failure: `attempt 6 in 9 s, gives up in 4:40`."""
    when = f"in {duration(wait_s + 0.999)}" if wait_s > 0 else "now"
    return f"attempt {attempt} {when}" + ("" if gives_up_in_s is None else f", gives up in {countdown(gives_up_in_s)}")


def written(line: str, stream: TextIO) -> str:
    """The line as it goes to this stream: with colours on a terminal that has some."""
    return line if stream.isatty() and may_colour() else click.unstyle(line)
