"""Holds the patterns of one ignore file by where they hold: in every directory, or in some.

A directory then costs little more than the patterns that are about it, however many there are (`KindPatterns.local`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from syncd.selection.gitignore import SPAN, Pattern, literal, parse_file, regex
from syncd.selection.pattern_index import Names, Tail

_REMEMBERED = 1024  # sets of local patterns


class KindPatterns:
    """The patterns of one list that can match files, or those that can match directories."""

    __slots__ = ("_exact", "_headed", "_last_of_trailing", "_remembered", "_trailing", "all_float", "floating")

    def __init__(self, patterns: Iterable[tuple[int, Pattern]]) -> None:
        floating: list[Tail] = []
        # Heads are looked up by the directory's whole path ("a/b/"), by its end (`**/b/`), or tried one by one.
        self._exact: dict[str, list[Tail]] = {}
        self._trailing: dict[str, list[Tail]] = {}
        self._last_of_trailing: set[str] = set()
        self._headed: list[tuple[re.Pattern[str], Tail]] = []
        self._remembered: dict[tuple[Tail, ...], Names] = {}
        for index, pattern in patterns:
            for head, tail in pattern.places:
                exact = literal(head)
                trailing = literal(head[1:]) if head[:1] == (SPAN,) else None
                if trailing == "":
                    floating.append((index, tail))
                elif exact is not None:
                    self._exact.setdefault(exact, []).append((index, tail))
                elif trailing is not None:
                    self._trailing.setdefault(trailing, []).append((index, tail))
                    self._last_of_trailing.add(_last(trailing))
                else:
                    self._headed.append((re.compile(regex(head), re.DOTALL), (index, tail)))
        self.floating = Names(floating) if floating else None
        self.all_float = not (self._exact or self._trailing or self._headed)

    def local(self, where: str) -> Names | None:
        """The patterns that hold in the directory `where` ("" or "a/b/", below the list's own) but not in all."""
        tails = list(self._exact.get(where, ()))
        if _last(where) in self._last_of_trailing:
            slash = len(where)
            while slash > 0:
                slash = where.rfind("/", 0, slash - 1) + 1
                tails += self._trailing.get(where[slash:], ())
        tails += [tail for head, tail in self._headed if head.fullmatch(where)]
        if not tails:
            return None
        key = tuple(sorted(tails))
        names = self._remembered.get(key)
        if names is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            names = self._remembered[key] = Names(key)
        return names


def _last(where: str) -> str:
    return where[where.rfind("/", 0, -1) + 1 :]


class PatternList:
    """The patterns of one source, wherever it stands; later ones win."""

    __slots__ = ("directories", "files", "patterns")

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self.files = KindPatterns((i, p) for i, p in enumerate(self.patterns) if not p.dirs_only)
        self.directories = KindPatterns(enumerate(self.patterns))


@lru_cache(maxsize=256)
def pattern_list(data: bytes) -> PatternList:
    """The list in an ignore file. Each scan reads the files again, and finds the same bytes nearly always."""
    return PatternList(tuple(parse_file(data)))
