"""Reads what stands in the brackets of a gitignore pattern, `[a-c]`, as git does: a set of bytes.

A backslash escapes, also at the end of a range; a reversed range is empty; "]" that comes first is meant itself, and so
is "-" at either end or after a range; `[:space:]` lacks vertical tab and form feed; "/" is never matched.
"""

from __future__ import annotations

import re


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


def char_class(text: str, start: int) -> tuple[str, int] | None:
    """The bracket whose inside starts at `start`, as a regular expression, and where the text goes on behind it.

    One byte alone is that character, not an expression. None if the bracket is not closed, names an unknown class or
    holds nothing: then the whole pattern matches nothing.
    """
    negated = text.startswith(("!", "^"), start)
    first = position = start + negated
    members: set[int] = set()
    lowest = 0  # what a "-" would range from; 0 for nothing
    while position == first or not text.startswith("]", position):
        name, behind = _class_name(text, position)
        if name is not None:
            if name not in _CLASSES:
                return None
            members |= _CLASSES[name]
            lowest, position = 0, behind
            continue
        ranges = lowest and text.startswith("-", position) and not text.startswith("]", position + 1)
        code, behind = _code(text, position + 1 if ranges else position)
        if code is None:
            return None
        members.update(range(lowest, code + 1) if ranges else (code,))
        lowest, position = 0 if ranges else code, behind
    codes = sorted((_ALL - members if negated else members) - _SLASH)
    if len(codes) < 2:
        return (chr(codes[0]), position + 1) if codes else None
    return "[" + "".join(f"\\x{code:02x}" for code in codes) + "]", position + 1


def _class_name(text: str, position: int) -> tuple[str | None, int]:
    """The name in `[:name:]` at `position`, None if no such thing stands there, and where the text goes on."""
    end = text.find("]", position + 2)
    if not text.startswith("[:", position) or end < 0 or text[end - 1] != ":" or end == position + 2:
        return None, position
    return text[position + 2 : end - 1], end + 1


def _code(text: str, position: int) -> tuple[int | None, int]:
    """The byte at `position`, escaped or not, None at the text's end, and where the text goes on."""
    position += text.startswith("\\", position)
    return (ord(text[position]), position + 1) if position < len(text) else (None, position)
