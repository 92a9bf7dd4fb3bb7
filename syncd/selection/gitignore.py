r"""Reads one gitignore pattern as git does, and says in which directories it speaks of which names.

    line ── parse_line ──> Pattern: negated, folders only, and one or more
                           Place:   *head*, the directories it holds in, and *tail*, the names there

Git's documentation leaves much open, so the referee is git itself (2.47; `tests/component/test_selection_and_git.py`).
What it does, and what a translation to regular expressions easily gets wrong:

- Bytes, not characters: `?` is half an "é". Text in this module is bytes spelled as Latin-1 (`as_latin1`).
- Only spaces end a line unseen, not tabs; a carriage return does just before a newline; a NUL ends the line.
- A pattern with an unclosed or unknown bracket, or a lone backslash at its end, matches nothing at all.
- Brackets have rules of their own: see `syncd/selection/char_class.py`.
- `**` spans directories only between slashes; elsewhere it is one `*`. But git compares the part before the first
  wildcard as plain text and looks at the rest alone, so `x/a**/b` spans too, and matches `x/ab` (see `_joined`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from syncd.selection.char_class import char_class

# A pattern is a list of atoms. One character stands for itself, "/" between segments; the longer ones are regexes.
STAR = "[^/]*"
ONE = "[^/]"
SPAN = "(?:.*/)?"  # `**` between slashes: no directory, or any number of them

_WILD = frozenset("*?[\\")
_BOM = b"\xef\xbb\xbf"


class Place(NamedTuple):
    """The directories that `head` matches, and the names there that `tail` matches.

    Both are atoms. The head is matched with the directory's path, "" or "a/b/", relative to the ignore file's own.
    """

    head: tuple[str, ...]
    tail: tuple[str, ...]


class Pattern(NamedTuple):
    """One line of an ignore file that can match something; `text` is the line as git shows it."""

    text: str
    line: int
    negated: bool
    dirs_only: bool
    places: tuple[Place, ...]


def as_latin1(name: str) -> str:
    """The bytes of a name (surrogateescape) as Latin-1 text, in which patterns are matched."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("latin-1")


def from_latin1(text: str) -> str:
    """The name whose bytes are spelled by `text`."""
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "surrogateescape")


def parse_file(data: bytes) -> Iterator[Pattern]:
    """The patterns of an ignore file in order, without comments and what can match nothing; lines count from 1."""
    for number, line in enumerate(data.removeprefix(_BOM).decode("latin-1").split("\n"), 1):
        pattern = parse_line(line.removesuffix("\r"), number)
        if pattern is not None:
            yield pattern


def parse_line(line: str, number: int) -> Pattern | None:
    """The pattern in one line (Latin-1, without its end); None for a comment and for what can match nothing."""
    if line.startswith("#"):
        return None
    text = _without_trailing_spaces(line.partition("\0")[0])
    body = text.removeprefix("!")
    dirs_only = body.endswith("/")
    body = body.removesuffix("/")
    places = tuple(_places(body)) if body else ()
    if not places:
        return None
    return Pattern(from_latin1(text), number, text.startswith("!"), dirs_only, places)


def bad_pattern(pattern: str) -> str | None:
    r"""Why a pattern that someone wrote on purpose can match nothing, as the end of a sentence; None if it can.

    >>> bad_pattern("[a-")
    'can match nothing: a bracket, a backslash at its end or an empty folder name is in the way'
    """
    if "\n" in pattern or "\0" in pattern:
        return "must be one line"
    if not pattern.strip(" "):
        return "is blank"
    if pattern.startswith("#"):
        return r"is a comment; a name that starts with # is written \#"
    if not pattern.removeprefix("!").strip("/ "):
        return "names nothing"
    if parse_line(as_latin1(pattern), 1) is None:
        return "can match nothing: a bracket, a backslash at its end or an empty folder name is in the way"
    return None


def regex(atoms: Sequence[str]) -> str:
    """A regular expression for atoms; each star but the last of a segment takes the first way that fits.

    That is enough (what follows a later star fits later too), and keeps `*a*a*a*a*b` from trying every way.
    """
    return "/".join(_segment_regex(segment) for segment in _segments(atoms))


def literal(atoms: Sequence[str]) -> str | None:
    """The one text that atoms match, or None if they match several."""
    return "".join(atoms) if all(len(atom) == 1 for atom in atoms) else None


def _without_trailing_spaces(line: str) -> str:
    bare = line.rstrip(" ")
    backslashes = len(bare) - len(bare.rstrip("\\"))
    # An odd number of backslashes escapes the first of the spaces.
    return line[: len(bare) + 1] if backslashes % 2 else bare


def _places(body: str) -> Iterator[Place]:
    if "/" not in body:
        atoms = _atoms(body)
        if atoms is not None:
            yield Place((SPAN,), tuple(STAR if atom == SPAN else atom for atom in atoms))
        return
    body = body.removeprefix("/")
    plain = next((i for i, char in enumerate(body) if char in _WILD), len(body))
    atoms = _atoms(body[plain:])
    if atoms is None:
        return
    for joined in _joined(list(body[:plain]), atoms):
        place = _place(joined)
        if place is not None:
            yield place


def _joined(lead: list[str], atoms: list[str]) -> Iterator[list[str]]:
    """The plain beginning and the rest as one, or as several where `**` directly follows a plain name.

    Git sees such a `**` at the start of what it matches, so it spans: `x/a**/b` is `x/ab` or `x/a*/**/b`.
    """
    if not lead or lead[-1] == "/" or atoms[:1] != [SPAN]:
        yield lead + atoms
        return
    yield [*lead, STAR, "/", *atoms]
    if atoms == [SPAN]:
        yield [*lead, STAR]
    else:
        yield from _joined(lead, atoms[2:])


def _place(atoms: list[str]) -> Place | None:
    segments = list(_segments(atoms))
    if not all(segments):
        return None  # no path has an empty name in it
    if segments[-1] == [SPAN]:
        segments.append([STAR])
    head: list[str] = []
    for segment in segments[:-1]:
        if segment != [SPAN]:
            head += [*segment, "/"]
        elif head[-1:] != [SPAN]:
            head.append(SPAN)
    return Place(tuple(head), tuple(segments[-1]))


def _segments(atoms: Sequence[str]) -> Iterator[list[str]]:
    segment: list[str] = []
    for atom in atoms:
        if atom == "/":
            yield segment
            segment = []
        else:
            segment.append(atom)
    yield segment


def _segment_regex(atoms: Sequence[str]) -> str:
    first, *chunks = _chunks(atoms)
    if not chunks:
        return first
    *middle, last = chunks
    return first + "".join(f"(?>[^/]*?{chunk})" for chunk in middle) + STAR + last


def _chunks(atoms: Sequence[str]) -> Iterator[str]:
    chunk = ""
    for atom in atoms:
        if atom == STAR:
            yield chunk
            chunk = ""
        else:
            chunk += re.escape(atom) if len(atom) == 1 else atom
    yield chunk


def _atoms(text: str) -> list[str] | None:
    """The atoms of a pattern that starts with the first wildcard; None if it can match nothing."""
    atoms: list[str] = []
    position = 0
    while position < len(text):
        char = text[position]
        if char == "*":
            end = position + len(text[position:]) - len(text[position:].lstrip("*"))
            if end - position == 1 or (position and text[position - 1] != "/"):
                atoms.append(STAR)
            elif end == len(text) or text[end] == "/":
                atoms.append(SPAN)
            elif text.startswith("\\/", end):
                atoms += [STAR, "/", SPAN]  # git takes an escaped slash for one that must be there
            else:
                atoms.append(STAR)
            position = end
        elif char == "[":
            found = char_class(text, position + 1)
            if found is None:
                return None
            atom, position = found
            atoms.append(atom)
        elif char == "\\":
            if position + 1 == len(text):
                return None
            atoms.append(text[position + 1])
            position += 2
        else:
            atoms.append(ONE if char == "?" else char)
            position += 1
    return atoms
