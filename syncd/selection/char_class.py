"""Parses the brackets of a gitignore pattern, `[a-c]`, as git does: they are a set of bytes.

A backslash escapes, also at the end of a range. A reversed range is empty. "]" is a member if it comes first, and "-"
at either end or after a range. `[:space:]` lacks vertical tab and form feed. "/" is never matched.
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
