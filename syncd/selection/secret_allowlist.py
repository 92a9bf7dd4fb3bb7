"""The paths that may leave although they hold a secret: `workspace.allow_secrets`, as gitignore patterns.

Unlike an ignore pattern, one that names a folder is also about each file in it: there is no folder to turn back at.
"""

from __future__ import annotations

from collections.abc import Iterable

from syncd.selection.gitignore import as_latin1, parse_line
from syncd.selection.pattern_index import NO_MATCH
from syncd.selection.pattern_list import PatternList
from syncd.selection.rules import Decision, Layer, Rules, Strength


def covering(patterns: Iterable[str]) -> tuple[str, ...]:
    """The patterns, each with one for all that lies below a folder of that name.

    >>> covering(["certs/", "/a/b.pem"])
    ('certs/', '**/certs/**', '/a/b.pem', '/a/b.pem/**')
    """
    lines = []
    for pattern in patterns:
        folder = pattern.removesuffix("/")
        lines += [pattern, f"{folder}/**" if "/" in folder else f"**/{folder}/**"]
    return tuple(lines)


class SecretAllowlist:
    """Those paths, to be asked about files."""

    def __init__(self, patterns: Iterable[str]) -> None:
        parsed = [parse_line(as_latin1(line), number) for number, line in enumerate(covering(patterns), 1)]
        found = PatternList([pattern for pattern in parsed if pattern is not None])
        decisions = tuple(Decision(True, None) for _ in found.patterns)
        self._rules = Rules.of([Layer(Strength.CONFIG, found, "", decisions)])

    def __contains__(self, path: str) -> bool:
        where, slash, name = as_latin1(path).rpartition("/")
        return self._rules.files.pattern_index(where + slash).strongest(name) != NO_MATCH
