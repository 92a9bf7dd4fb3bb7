"""The fixed parts of messages: what syncd's own sources say, without the values put in between.

A report shows no other text. A list of what is private is never complete, so a text is shown only as far as it is the
same for everyone: string constants of the program, the system's error texts and a few of systemd's.
"""

from __future__ import annotations

import ast
import errno
import os
import re
from collections.abc import Iterator
from functools import cache

import syncd

# Their messages are in no report; names of files in them might be a person's, too.
_SKIPPED = ("emulator", "builtin_rules.py")
_NUMBER = "[0-9][0-9.,]*%?"
_UNITS = "files?|paths?|director(?:y|ies)|folders?|links?|warnings?|texts?|bytes?|[KMG]iB|ms|s|min|h|days?|syncs?"
_OTHERS = (
    rf"{_NUMBER} (?:{_UNITS})",
    r"with [1-5][0-9]{2}|(?<=\()[1-5][0-9]{2}",  # an HTTP status
    "^(?:watching|stopping|paused|resumed|resolved)",  # log lines that begin with a single word
    # From systemd's message catalog.
    r"Main process exited, code=[a-z]+, status=[0-9]+/[A-Z_]+",
    r"Failed with result '[a-z-]{1,20}'",
    rf"Scheduled restart job, restart counter is at {_NUMBER}",
    "(?:Started|Starting|Stopped|Stopping|Reloaded|Reloading) syncd",
    "Start request repeated too quickly|Deactivated successfully",
    "No journal files were opened due to insufficient permissions",
)
# A conversion of `%`; those of numbers are d, f and g.
_CONVERSION = re.compile(r"%[-+ #0-9.]*([a-z])")
_NUMBER_FORMAT = re.compile(r".*[dfg,%]")
# In place of a number or of any other value until the pattern is made.
_NUMBER_MARK, _VALUE_MARK = "\x00", "\x01"
_AROUND = re.compile(r"^[\W_]+|[^\w\x00]+$")


def fixed_text(text: str) -> str:
    """The text with `…` in place of all that is not fixed."""
    shown, end = "", 0
    for found in _pattern().finditer(text):
        shown += _between(text[end : found.start()]) + found[0]
        end = found.end()
    return (shown + _between(text[end:])).strip()


def _between(text: str) -> str:
    return text if re.fullmatch(r"[\s(),.:;]{0,3}", text) else " … "


@cache
def _pattern() -> re.Pattern[str]:
    """Matches the longest fixed part at a position. Where the sources cannot be read, it knows fewer."""
    parts = {re.escape(os.strerror(code)) for code in errno.errorcode}
    for folder, _, names in os.walk(os.path.dirname(syncd.__file__)):
        for name in names:
            if name.endswith(".py") and name not in _SKIPPED and os.path.basename(folder) not in _SKIPPED:
                parts.update(_fixed_parts(os.path.join(folder, name)))
    alternatives = [*_OTHERS, *sorted(parts, key=len, reverse=True)]
    return re.compile(rf"(?<!\w)(?:{'|'.join(alternatives)})(?!\w)")


def _fixed_parts(path: str) -> Iterator[str]:
    """Patterns of the constant parts of a module's strings; those of a single word may be anyone's word."""
    try:
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read())
    except OSError:
        return
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) not in docstrings:
            for part in _template(node).split(_VALUE_MARK):
                fixed = _AROUND.sub("", part)
                if len(re.findall(r"[A-Za-z]{2,}", fixed)) > 1 and " " in fixed:
                    yield re.escape(fixed).replace(_NUMBER_MARK, _NUMBER)


def _template(node: ast.AST) -> str:
    """A string's text with marks in place of its values; empty for what is no string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _CONVERSION.sub(lambda found: _NUMBER_MARK if found[1] in "dfg" else _VALUE_MARK, node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(value) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        format_spec = _template(node.format_spec) if node.format_spec else ""
        return _NUMBER_MARK if _NUMBER_FORMAT.fullmatch(format_spec) else _VALUE_MARK
    return ""
