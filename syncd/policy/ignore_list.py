"""Answers for one ignore file which of its patterns decides about a name, fast enough to ask for each file of a tree.

A list is compiled into what most patterns are: a whole name, an extension, an ending; what remains is one regular
expression. Patterns that hold in every directory (`floating`) are kept apart from those that hold in some (`local`),
so that a directory costs little more than the patterns that are about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from syncd.policy.gitignore import SPAN, STAR, Pattern, literal, parse_file, regex

NOBODY = -1
_REMEMBERED = 1024  # sets of local patterns, each a few hundred bytes

Tail = tuple[int, tuple[str, ...]]  # the index of a pattern, and the names it matches, as atoms


class Names:
    """Patterns that all hold in the directory at hand, asked for the last one that matches a name."""

    __slots__ = ("_endings", "_endings_in_order", "_extensions", "_globs", "_globs_in_order", "_literals")

    def __init__(self, tails: Iterable[Tail]) -> None:
        """`tails` come in ascending order, so that a later pattern replaces its equal."""
        self._literals: dict[str, int] = {}
        self._extensions: dict[str, int] = {}
        endings: dict[str, int] = {}
        globs: dict[str, int] = {}
        for index, tail in tails:
            whole = literal(tail)
            ending = literal(tail[1:]) if tail[0] == STAR else None
            if whole is not None:
                self._literals[whole] = index
            elif ending is None:
                globs[regex(tail)] = index
            elif ending.rfind(".") == 0:
                self._extensions[ending] = index
            else:
                endings[ending] = index
        self._endings = tuple(endings)
        self._endings_in_order = sorted(((index, ending) for ending, index in endings.items()), reverse=True)
        in_order = sorted(((index, glob) for glob, index in globs.items()), reverse=True)
        self._globs_in_order = [NOBODY, *(index for index, _ in in_order)]
        self._globs = re.compile("|".join(f"({glob})" for _, glob in in_order), re.DOTALL) if in_order else None

    def __bool__(self) -> bool:
        return bool(self._literals or self._extensions or self._endings or self._globs)

    def last(self, name: str) -> int:
        """The index of the last pattern that matches, or `NOBODY`."""
        best = self._literals.get(name, NOBODY)
        if self._extensions:
            by_extension = self._extensions.get(name[name.rfind(".") :], NOBODY)
            best = max(best, by_extension)
        if name.endswith(self._endings):
            best = max(best, next(index for index, ending in self._endings_in_order if name.endswith(ending)))
        if self._globs is not None:
            match = self._globs.fullmatch(name)
            if match is not None:
                best = max(best, self._globs_in_order[match.lastindex or 0])
        return best


class Side:
    """The patterns of one list that can match files, or those that can match directories."""

    __slots__ = ("_exact", "_headed", "_remembered", "_trailing", "floating")

    def __init__(self, patterns: Iterable[tuple[int, Pattern]]) -> None:
        floating: list[Tail] = []
        # Heads are looked up by the directory's whole path ("a/b/"), by its end (`**/b/`), or tried one by one.
        self._exact: dict[str, list[Tail]] = {}
        self._trailing: dict[str, list[Tail]] = {}
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
                else:
                    self._headed.append((re.compile(regex(head), re.DOTALL), (index, tail)))
        self.floating = Names(floating)

    def local(self, where: str) -> Names | None:
        """The patterns that hold in the directory `where` ("" or "a/b/", below the list's own) but not in all."""
        tails = list(self._exact.get(where, ()))
        if self._trailing:
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


class IgnoreList:
    """The patterns of one source, wherever it stands; later ones win."""

    __slots__ = ("directories", "files", "patterns")

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self.files = Side((i, p) for i, p in enumerate(self.patterns) if not p.dirs_only)
        self.directories = Side(enumerate(self.patterns))


@lru_cache(maxsize=256)
def ignore_list(data: bytes) -> IgnoreList:
    """The list in an ignore file. Each scan reads the files again, and finds the same bytes nearly always."""
    return IgnoreList(tuple(parse_file(data)))
