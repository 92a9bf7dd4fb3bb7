"""Finds the strongest of many patterns that match a name, with a few dictionary look-ups.

Most patterns are a whole name or an extension, and are looked up. The others are grouped by the character that a name
must begin or end with, so that only a few are tried: `*.py[cod]` is tried on names that end in c, o or d.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from syncd.selection.gitignore import STAR, literal, regex

NO_MATCH = -1

Tail = tuple[int, tuple[str, ...]]
"""The index of a pattern in its list, and the atoms that match its names."""

_CLASS = re.compile(r"\[(?:\\x[0-9a-f]{2})+\]")
_ANY = ""
_MAX_GROUPS = 16  # a class of more characters gets no group for each character


class Group(NamedTuple):
    """Several patterns as one regular expression, the strongest first, and the index of each."""

    expression: re.Pattern[str]
    indices: tuple[int, ...]


class NamePatterns:
    """The compiled name patterns of a list, or of a part of it; built once and used in many indexes."""

    __slots__ = ("beginning", "ending", "extensions", "literals")

    def __init__(self, tails: Iterable[Tail]) -> None:
        """Compile `tails`, which are in ascending order of their indices, so that a later one replaces its equal."""
        self.literals: dict[str, int] = {}
        self.extensions: dict[str, int] = {}
        beginning: dict[str, list[Tail]] = {}
        ending: dict[str, list[Tail]] = {}
        for tail in tails:
            index, atoms = tail
            whole = literal(atoms)
            behind_star = (literal(atoms[1:]) or "") if atoms[0] == STAR else ""
            if whole is not None:
                self.literals[whole] = index
            elif behind_star.rfind(".") == 0:
                self.extensions[behind_star] = index
            else:
                first, last = _characters(atoms[0]), _characters(atoms[-1])
                groups, characters = (ending, last) if first == [_ANY] else (beginning, first)
                for character in characters:
                    groups.setdefault(character, []).append(tail)
        self.beginning = {character: _group(tails) for character, tails in beginning.items()}
        self.ending = {character: _group(tails) for character, tails in ending.items()}


class PatternIndex:
    """The patterns of several lists that apply in one directory."""

    __slots__ = ("_anywhere", "_beginning", "_below", "_ending", "_extensions", "_literals")

    def __init__(self, components: Iterable[tuple[int, NamePatterns]], below: PatternIndex | None = None) -> None:
        """Combine the components, each with an offset for its indices: the greater the sum, the stronger the pattern.

        The patterns of `below` are searched too, so a directory with its own rules needs a small index, not a copy.
        """
        self._below = below
        self._literals: dict[str, int] = {}
        self._extensions: dict[str, int] = {}
        self._beginning: dict[str, list[Group]] = {}
        self._ending: dict[str, list[Group]] = {}
        for offset, names in components:
            for found, into in ((names.literals, self._literals), (names.extensions, self._extensions)):
                for text, index in found.items():
                    into[text] = max(into.get(text, NO_MATCH), offset + index)
            for groups, bins in ((names.beginning, self._beginning), (names.ending, self._ending)):
                for character, (expression, indices) in groups.items():
                    shifted = Group(expression, tuple(offset + index for index in indices))
                    bins.setdefault(character, []).append(shifted)
        self._anywhere = self._ending.pop(_ANY, [])

    def over(self, components: Sequence[tuple[int, NamePatterns]]) -> PatternIndex:
        """Return an index with these components in addition."""
        return PatternIndex(components, self) if components else self

    def strongest(self, name: str) -> int:
        """Return the greatest index of a pattern that matches, or `NO_MATCH`."""
        best = self._literals.get(name, NO_MATCH)
        found = self._extensions.get(name[name.rfind(".") :])
        if found is not None:
            best = max(best, found)
        groups = self._beginning.get(name[0])
        if groups is not None:
            best = max(best, _best_match(groups, name))
        groups = self._ending.get(name[-1])
        if groups is not None:
            best = max(best, _best_match(groups, name))
        if self._anywhere:
            best = max(best, _best_match(self._anywhere, name))
        return best if self._below is None else max(best, self._below.strongest(name))


def _best_match(groups: list[Group], name: str) -> int:
    best = NO_MATCH
    for expression, indices in groups:
        match = expression.fullmatch(name)
        if match is not None and match.lastindex is not None:
            best = max(best, indices[match.lastindex - 1])
    return best


def _group(tails: list[Tail]) -> Group:
    strongest_first = tails[::-1]
    alternatives = "|".join(f"({regex(atoms)})" for _, atoms in strongest_first)
    return Group(re.compile(alternatives), tuple(index for index, _ in strongest_first))


def _characters(atom: str) -> list[str]:
    """Return the characters that an atom matches; only `_ANY` if there are too many."""
    if len(atom) == 1:
        return [atom]
    if _CLASS.fullmatch(atom) and len(atom) <= 2 + 4 * _MAX_GROUPS:
        return list(_members(atom))
    return [_ANY]


def _members(atom: str) -> Iterator[str]:
    return (chr(int(code, 16)) for code in atom[3:-1].split("\\x"))
