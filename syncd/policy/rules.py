"""Puts ignore lists in the order of their strength, and finds for a directory the sieve that asks them all at once."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from typing import NamedTuple

from syncd.policy.ignore_list import IgnoreList, Side
from syncd.policy.sieve import NOBODY, Names, Sieve

_LONGEST_LIST = 1 << 32  # patterns in a list, and more than any file holds
_MOST_LISTS = 1 << 16  # of one strength in force at once: one a directory on the way down, and no path is that deep
_REMEMBERED = 256  # sieves for what some directories have in common, such as `docs/**`


class Rule(NamedTuple):
    """One pattern and where it stands: a file's path in the workspace, "workspace.ignore", "built-in" or "secrets"."""

    source: str
    line: int | None
    pattern: str

    def __str__(self) -> str:
        line = "" if self.line is None else f"{self.line}:"
        return f"{self.source}:{line} {self.pattern}"


class Decision(NamedTuple):
    """Whether a path belongs in the snapshot; `rule` decided it, `None` if none speaks of it.

    An included path has a rule where one brought it back (`!keep.log`).
    """

    included: bool
    rule: Rule | None


class Strength(enum.IntEnum):
    """Whose word counts more; the reasons are in `syncd/policy/selection.py`."""

    GIT = 0
    DEFAULTS = 1
    CONFIG = 2
    SYNCDIGNORE = 3
    HARD = 4


class Layer(NamedTuple):
    """An ignore list at its place in the workspace, with the decision for each of its patterns."""

    strength: Strength
    patterns: IgnoreList
    base: str  # the directory the patterns are relative to, spelled; "" or "a/b/"
    decisions: tuple[Decision | None, ...]  # None: the pattern only takes back what an earlier one of its list said


class Rules:
    """The layers in force in some directories, of equal strength the later the stronger, made ready to be asked."""

    __slots__ = ("_above", "_decisions", "_own", "_soft", "directories", "files", "layers")

    def __init__(self, own: Sequence[Layer], above: Rules | None = None) -> None:
        """`own` are added to those `above`, which are shared and not made again."""
        self._own = tuple(own)
        self._above = above
        self._soft: Rules | None = None
        self.layers: tuple[Layer, ...] = self._own if above is None else above.layers + self._own
        places = [_place(self.layers, position) for position in range(len(self.layers) - len(own), len(self.layers))]
        self._decisions = {} if above is None else dict(above._decisions)
        self._decisions.update((place, layer.decisions) for place, layer in zip(places, own, strict=True))
        files = [(place, layer, layer.patterns.files) for place, layer in zip(places, own, strict=True)]
        directories = [(place, layer, layer.patterns.directories) for place, layer in zip(places, own, strict=True)]
        self.files = View(files, None if above is None else above.files)
        self.directories = View(directories, None if above is None else above.directories)

    def without(self, strengths: Collection[Strength]) -> Rules:
        """These rules, made anew, but for those of some strengths."""
        return Rules([layer for layer in self.layers if layer.strength not in strengths])

    def soft(self) -> Rules:
        """These rules without the hard ones."""
        if self._soft is None:
            above = self._above
            self._soft = self.without({Strength.HARD}) if above is None else Rules(self._own, above.soft())
        return self._soft

    def decision(self, index: int) -> Decision | None:
        """The decision of the pattern that a sieve found."""
        return self._decisions[index // _LONGEST_LIST][index % _LONGEST_LIST]


class View:
    """Rules as they look at files, or at directories: one sieve for most places, and made once."""

    __slots__ = ("_anchored", "_everywhere", "_somewhere")

    def __init__(self, sides: Sequence[tuple[int, Layer, Side]], above: View | None) -> None:
        floating = [(place * _LONGEST_LIST, side.floating) for place, _, side in sides]
        parts = [(offset, names) for offset, names in floating if names is not None]
        below = None if above is None else above._everywhere
        self._everywhere = below if below is not None and not parts else Sieve(parts, below)
        self._anchored = [] if above is None else list(above._anchored)
        for place, layer, side in sides:
            if not side.all_float:
                self._anchored.append((place * _LONGEST_LIST, len(layer.base), side))
        self._somewhere: dict[tuple[tuple[int, Names], ...], Sieve] = {}

    def sieve(self, where: str) -> Sieve:
        """The sieve of one directory, "" or "a/b/"."""
        found = [(offset, side.local(where[base:])) for offset, base, side in self._anchored]
        parts = tuple((offset, names) for offset, names in found if names is not None)
        if not parts:
            return self._everywhere
        sieve = self._somewhere.get(parts)
        if sieve is None:
            if len(self._somewhere) >= _REMEMBERED:
                self._somewhere.clear()
            sieve = self._somewhere[parts] = Sieve(parts, self._everywhere)
        return sieve


def _place(layers: Sequence[Layer], position: int) -> int:
    """Greater for what is stronger, and unmoved by what is added later."""
    strength = layers[position].strength
    return strength * _MOST_LISTS + sum(layer.strength is strength for layer in layers[:position])
