"""Holds the patterns of one ignore file by the directories that they apply in: all, or some.

So the cost of a directory depends on the patterns that apply in it, not on how many there are (`KindPatterns.local`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from syncd.selection.gitignore import SPAN, Pattern, literal, parse_file, regex
from syncd.selection.pattern_index import NamePatterns, Tail

_CACHE_SIZE = 1024  # sets of local patterns


class KindPatterns:
    """The patterns of one list that can match files, or those that can match directories."""

    __slots__ = ("_cache", "_exact", "_headed", "_last_of_trailing", "_trailing", "all_unanchored", "unanchored")

    def __init__(self, patterns: Iterable[tuple[int, Pattern]]) -> None:
        unanchored: list[Tail] = []
        # Heads are looked up by the directory's whole path ("a/b/") or by its end (`**/b/`), or matched one by one.
        self._exact: dict[str, list[Tail]] = {}
        self._trailing: dict[str, list[Tail]] = {}
        self._last_of_trailing: set[str] = set()
        self._headed: list[tuple[re.Pattern[str], Tail]] = []
        self._cache: dict[tuple[Tail, ...], NamePatterns] = {}
        for index, pattern in patterns:
            for head, tail in pattern.path_patterns:
                exact = literal(head)
                trailing = literal(head[1:]) if head[:1] == (SPAN,) else None
                if trailing == "":
                    unanchored.append((index, tail))
                elif exact is not None:
                    self._exact.setdefault(exact, []).append((index, tail))
                elif trailing is not None:
                    self._trailing.setdefault(trailing, []).append((index, tail))
                    self._last_of_trailing.add(_last(trailing))
                else:
                    self._headed.append((re.compile(regex(head), re.DOTALL), (index, tail)))
        self.unanchored = NamePatterns(unanchored) if unanchored else None
        self.all_unanchored = not (self._exact or self._trailing or self._headed)

    def local(self, location: str) -> NamePatterns | None:
        """Return the patterns that apply in one directory, but not in all.

        `location` is its path, "" or "a/b/", relative to the list's own directory.
        """
        tails = list(self._exact.get(location, ()))
        if _last(location) in self._last_of_trailing:
            slash = len(location)
            while slash > 0:
                slash = location.rfind("/", 0, slash - 1) + 1
                tails += self._trailing.get(location[slash:], ())
        tails += [tail for head, tail in self._headed if head.fullmatch(location)]
        if not tails:
            return None
        key = tuple(sorted(tails))
        names = self._cache.get(key)
        if names is None:
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            names = self._cache[key] = NamePatterns(key)
        return names


def _last(location: str) -> str:
    return location[location.rfind("/", 0, -1) + 1 :]


class PatternList:
    """The patterns of one source, independent of its directory; later ones win."""

    __slots__ = ("directories", "files", "patterns")

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self.files = KindPatterns((i, p) for i, p in enumerate(self.patterns) if not p.dirs_only)
        self.directories = KindPatterns(enumerate(self.patterns))


@lru_cache(maxsize=256)
def pattern_list(data: bytes) -> PatternList:
    """Parse an ignore file. The result is cached: each scan reads the files again, and their bytes rarely change."""
    return PatternList(tuple(parse_file(data)))
