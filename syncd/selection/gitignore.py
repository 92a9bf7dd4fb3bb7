r"""Parses gitignore patterns as git does: into the directories that a pattern applies in, and the names it matches.

    line ── parse_line ──> Pattern: negated, directories only, and one or more
                           PathPattern: *head*, the directories, and *tail*, the names in them

Git's documentation leaves much open, so git's own behaviour decides (2.47;
`tests/component/test_selection_and_git.py`). A translation to regular expressions easily gets these points wrong:

- Patterns match bytes, not characters: `?` is half an "é". Text in this module is bytes decoded as Latin-1
  (`as_latin1`).
- Trailing spaces are dropped, not tabs; so is a carriage return before the newline; a NUL ends the line.
- A pattern with an unclosed or unknown bracket, or with a single backslash at its end, matches nothing at all.
- Brackets are a set of bytes. A backslash escapes, also at the end of a range. A reversed range is empty. "]" is a
  member if it comes first, and "-" at either end or after a range. `[:space:]` lacks vertical tab and form feed. "/" is
  never matched.
- `**` spans directories only between slashes; elsewhere it is one `*`. But git compares the part before the first
  wildcard as plain text and matches only the rest, so `x/a**/b` spans too, and matches `x/ab` (see `_joined`). So it
  was up to git 2.52; for 2.53 it is one `*`. The earlier rule excludes more, so no older git's user sends too much.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# A pattern is a list of atoms. One character stands for itself, "/" between segments; the longer ones are regexes.
STAR = "[^/]*"
ONE = "[^/]"
SPAN = "(?:.*/)?"  # `**` between slashes: no directory, or any number of them

_WILD = frozenset("*?[\\")
_BOM = b"\xef\xbb\xbf"


class PathPattern(NamedTuple):
    """A pair of patterns: `head` matches directories, `tail` matches names in them.

    Both are atoms. The head is matched with the directory's path, "" or "a/b/", relative to the ignore file's
    directory.
    """

    head: tuple[str, ...]
    tail: tuple[str, ...]


class Pattern(NamedTuple):
    """One line of an ignore file that can match something; `text` is the line as git shows it."""

    text: str
    line: int
    negated: bool
    dirs_only: bool
    path_patterns: tuple[PathPattern, ...]


def as_latin1(name: str) -> str:
    """Return the bytes of a name (surrogateescape) as Latin-1 text, in which patterns are matched."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("latin-1")


def from_latin1(text: str) -> str:
    """Return the name (surrogateescape) whose bytes are `text` in Latin-1."""
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "surrogateescape")


def parse_file(data: bytes) -> Iterator[Pattern]:
    """Yield the patterns of an ignore file in order; comments and patterns that cannot match are skipped."""
    for number, line in enumerate(data.removeprefix(_BOM).decode("latin-1").split("\n"), 1):
        pattern = parse_line(line.removesuffix("\r"), number)
        if pattern is not None:
            yield pattern


def parse_line(line: str, number: int) -> Pattern | None:
    """Parse one line (Latin-1, without its end); None for a comment and for a pattern that cannot match."""
    if line.startswith("#"):
        return None
    text = _without_trailing_spaces(line.partition("\0")[0])
    body = text.removeprefix("!")
    dirs_only = body.endswith("/")
    body = body.removesuffix("/")
    path_patterns = tuple(_places(body)) if body else ()
    if not path_patterns:
        return None
    return Pattern(from_latin1(text), number, text.startswith("!"), dirs_only, path_patterns)


def bad_pattern(pattern: str) -> str | None:
    r"""Return the reason why a configured pattern cannot match, as the end of a sentence; None if it can match.

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
    """Return a regular expression for atoms; each star but the last of a segment takes the shortest match.

    So does each `**` between slashes but the last. The shortest match is enough, as a later one can match more, and so
    `*a*a*a*a*b` and `**/a/**/a/**/b` do not backtrack.
    """
    first, *parts = ["/".join(map(_segment_regex, _segments(part))) for part in _segments(atoms, SPAN)]
    if not parts:
        return first
    *middle, last = parts
    return first + "".join(f"(?>(?:[^/]*/)*?{part})" for part in middle) + SPAN + last


def literal(atoms: Sequence[str]) -> str | None:
    """Return the one text that atoms match, or None if they match several."""
    return "".join(atoms) if all(len(atom) == 1 for atom in atoms) else None


def _without_trailing_spaces(line: str) -> str:
    bare = line.rstrip(" ")
    backslashes = len(bare) - len(bare.rstrip("\\"))
    # An odd number of backslashes escapes the first of the spaces.
    return line[: len(bare) + 1] if backslashes % 2 else bare


def _places(body: str) -> Iterator[PathPattern]:
    if "/" not in body:
        atoms = _atoms(body)
        if atoms is not None:
            yield PathPattern((SPAN,), tuple(STAR if atom == SPAN else atom for atom in atoms))
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
    """Join the plain beginning and the rest; where `**` directly follows a plain name, that gives several patterns.

    Git sees such a `**` at the start of the part that it matches, so it spans: `x/a**/b` is `x/ab` or `x/a*/**/b`.
    """
    if not lead or lead[-1] == "/" or atoms[:1] != [SPAN]:
        yield lead + atoms
        return
    yield [*lead, STAR, "/", *atoms]
    if atoms == [SPAN]:
        yield [*lead, STAR]
    else:
        yield from _joined(lead, atoms[2:])


def _place(atoms: list[str]) -> PathPattern | None:
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
    return PathPattern(tuple(head), tuple(segments[-1]))


def _segments(atoms: Sequence[str], separator: str = "/") -> Iterator[list[str]]:
    segment: list[str] = []
    for atom in atoms:
        if atom == separator:
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
    """Return the atoms of a pattern that starts with its first wildcard; None if it cannot match."""
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
                atoms += [STAR, "/", SPAN]  # git requires an escaped slash
            else:
                atoms.append(STAR)
            position = end
        elif char == "[":
            found = _char_class(text, position + 1)
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


def _class(test: str) -> frozenset[int]:
    return frozenset(code for code in range(1, 128) if re.fullmatch(test, chr(code)))


_CLASSES = {
    "alnum": _class("[0-9A-Za-z]"),
    "alpha": _class("[A-Za-z]"),
    "blank": _class("[ \t]"),
    "cntrl": _class("[\x01-\x1f\x7f]"),
    "digit": _class("[0-9]"),
    "graph": _class("[!-~]"),
    "lower": _class("[a-z]"),
    "print": _class("[ -~]"),
    "punct": _class("[!-/:-@\\[-`{-~]"),
    "space": _class("[ \t\n\r]"),
    "upper": _class("[A-Z]"),
    "xdigit": _class("[0-9A-Fa-f]"),
}
_ALL = frozenset(range(1, 256))
_SLASH = frozenset(b"/")


def _char_class(text: str, start: int) -> tuple[str, int] | None:
    """Parse the bracket whose content starts at `start`; return its regular expression and the position behind it.

    A single byte is returned as that character, not as an expression. None if the bracket is not closed, names an
    unknown class or holds no byte: then the whole pattern matches nothing.
    """
    negated = text.startswith(("!", "^"), start)
    first = position = start + negated
    members: set[int] = set()
    lowest = 0  # the start of a range if "-" follows; 0: a range cannot start here
    while position == first or not text.startswith("]", position):
        name, end = _class_name(text, position)
        if name is not None:
            if name not in _CLASSES:
                return None
            members |= _CLASSES[name]
            lowest, position = 0, end
            continue
        is_range = lowest and text.startswith("-", position) and not text.startswith("]", position + 1)
        code, end = _code(text, position + 1 if is_range else position)
        if code is None:
            return None
        members.update(range(lowest, code + 1) if is_range else (code,))
        lowest, position = 0 if is_range else code, end
    codes = sorted((_ALL - members if negated else members) - _SLASH)
    if len(codes) < 2:
        return (chr(codes[0]), position + 1) if codes else None
    return "[" + "".join(f"\\x{code:02x}" for code in codes) + "]", position + 1


def _class_name(text: str, position: int) -> tuple[str | None, int]:
    """Return the name in `[:name:]` at `position` (None: there is no such class), and the position behind it."""
    end = text.find("]", position + 2)
    if not text.startswith("[:", position) or end < 0 or text[end - 1] != ":" or end == position + 2:
        return None, position
    return text[position + 2 : end - 1], end + 1


def _code(text: str, position: int) -> tuple[int | None, int]:
    """Return the byte at `position`, escaped or not (None: the text ends), and the position behind it."""
    position += text.startswith("\\", position)
    return (ord(text[position]), position + 1) if position < len(text) else (None, position)
