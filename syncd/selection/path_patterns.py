"""Paths by gitignore patterns: those that `workspace.allow_secrets` allows, or that `apply --include` takes.

An ignore pattern that matches a folder excludes its files by stopping the walk there. A pattern here has to match the
files themselves, so each pattern also gets one for everything below a folder of that name.
"""

from __future__ import annotations

from collections.abc import Iterable

from syncd.selection.gitignore import as_latin1, parse_line
from syncd.selection.pattern_index import NO_MATCH
from syncd.selection.pattern_list import PatternList
from syncd.selection.rules import Decision, Layer, Precedence, Rules


def expand_folders(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns, each with one for everything below a folder of that name.

    >>> expand_folders(["certs/", "/a/b.pem"])
    ('certs/', '**/certs/**', '/a/b.pem', '/a/b.pem/**')
    """
    lines = []
    for pattern in patterns:
        folder = pattern.removesuffix("/")
        lines += [pattern, f"{folder}/**" if "/" in folder else f"**/{folder}/**"]
    return tuple(lines)


class PathPatterns:
    """Tells for a file's path if a pattern matches it."""

    def __init__(self, patterns: Iterable[str]) -> None:
        parsed = [parse_line(as_latin1(line), number) for number, line in enumerate(expand_folders(patterns), 1)]
        found = PatternList([pattern for pattern in parsed if pattern is not None])
        decisions = tuple(Decision(True, None) for _ in found.patterns)
        self._rules = Rules.of([Layer(Precedence.CONFIG, found, "", decisions)])

    def __contains__(self, path: str) -> bool:
        location, slash, name = as_latin1(path).rpartition("/")
        return self._rules.files.pattern_index(location + slash).strongest(name) != NO_MATCH
