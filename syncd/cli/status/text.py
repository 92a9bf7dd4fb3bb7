"""Lines of text with tones: wrapped to a width in columns, and printed with or without colour."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from enum import Enum

import click
from msgspec import Struct

from syncd.core.text import shown_path

_COMMAND = re.compile(r"`[^`]+`")
_LEAST = 8
_NO_BREAK = "\0"  # no text that is shown has it


class Tone(Enum):
    """The role of a piece of text, which sets its colour."""

    PLAIN = "plain"
    STRONG = "strong"
    GOOD = "good"
    BUSY = "busy"
    ATTENTION = "attention"
    BAD = "bad"


Span = tuple[str, Tone]
Line = tuple[Span, ...]

# Of the eight colours that every terminal has; its text colour, white, black and dim are not used, as the background
# is unknown.
_COLOURS = {Tone.GOOD: "green", Tone.BUSY: "cyan", Tone.ATTENTION: "yellow", Tone.BAD: "red"}


class Glyphs(Struct, frozen=True):
    """Three characters, of one column each."""

    mark: str
    full: str
    empty: str


ASCII = Glyphs("*", "#", ".")
UNICODE = Glyphs("●", "█", "░")


def wrapped(text: str, width: int, first: Line, indent: int, tone: Tone = Tone.PLAIN) -> list[Line]:
    """The text after `first`, wrapped to lines of at most `width` columns, the later ones indented.

    A `command` in it stays on one line, to be copied.
    """
    used = sum(columns(piece) for piece, _ in first)
    room = max(_LEAST, width - indent)
    text = _COMMAND.sub(lambda found: _unbroken(found[0], room), shown_path(text))
    words = [word.replace(_NO_BREAK, " ") for word in text.split(" ")]
    rows = list(_rows(words, max(_LEAST, width - used), room))
    lead: Span = (" " * indent, Tone.PLAIN)
    lines: list[Line] = [(*first, (rows[0], tone))]
    return lines + [(lead, (row, tone)) for row in rows[1:]]


def _unbroken(command: str, room: int) -> str:
    return command.replace(" ", _NO_BREAK) if columns(command) <= room else command


def _rows(words: Iterable[str], first_columns: int, columns_each: int) -> Iterator[str]:
    row, room = "", first_columns
    for word in words:
        longer = f"{row} {word}" if row else word
        if columns(longer) <= room:
            row = longer
            continue
        if row:
            yield row
            room = columns_each
        row = word
        while columns(row) > room:  # a path or URL continues on the next line
            head = _head(row, room)
            yield head
            row, room = row[len(head) :], columns_each
    yield row


def _head(text: str, room: int) -> str:
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


def plain(line: Line) -> str:
    """The line without colour."""
    return "".join(text for text, _ in line).rstrip()


def coloured(line: Line) -> str:
    """The line with its colours, for a terminal of 16 colours."""
    pieces = [
        text if tone is Tone.PLAIN or not text.strip() else click.style(text, fg=_COLOURS.get(tone), bold=True)
        for text, tone in line
    ]
    return "".join(pieces).rstrip()


def fitted(text: str, encoding: str) -> str:
    """The text with the letters that this encoding lacks escaped."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.replace("…", "...").encode(encoding, "backslashreplace").decode(encoding)
    return text
