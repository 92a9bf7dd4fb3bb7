"""Puts ignore lists in the order of their strength, and finds for a directory the sieve that asks them all at once."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from syncd.selection.pattern_index import Names, PatternIndex
from syncd.selection.pattern_list import KindPatterns, PatternList

_LONGEST_LIST = 1 << 32  # patterns in a list, and more than any file holds
_MOST_LISTS = 1 << 16  # of one strength in force at once: one a directory on the way down, and no path is that deep
_REMEMBERED = 256  # sieves for what some directories have in common, such as `docs/**`


class Rule(NamedTuple):
    """One pattern and where it stands: "workspace.ignore", "built-in", "secrets", or a file.

    A file in the workspace is shown by its path there, any other by its absolute one.
    """

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
    """Whose word counts more; the reasons are in `syncd/selection/selection.py`."""

    GIT = 0
    DEFAULTS = 1
    CONFIG = 2
    SYNCDIGNORE = 3
    HARD = 4


class Layer(NamedTuple):
    """An ignore list at its place in the workspace, with the decision for each of its patterns."""

    strength: Strength
    patterns: PatternList
    base: str  # the directory the patterns are relative to, spelled, from the repository's top; "" or "a/b/"
    decisions: tuple[Decision | None, ...]  # None: the pattern only takes back what an earlier one of its list said


class Rules:
    """The layers in force in some directories, of equal strength the later the stronger, ready to be asked."""

    __slots__ = ("_decisions", "_soft", "directories", "files", "layers")

    def __init__(
        self,
        layers: tuple[Layer, ...],
        decisions: dict[int, tuple[Decision | None, ...]],
        files: View,
        directories: View,
    ) -> None:
        self.layers = layers
        self.files = files
        self.directories = directories
        self._decisions = decisions
        self._soft: Rules | None = None

    @classmethod
    def of(cls, layers: Iterable[Layer]) -> Rules:
        """Rules with one sieve for all layers, which is quickest to ask."""
        placed = _placed(tuple(layers), 0)
        return cls(
            tuple(layer for _, layer in placed),
            {place: layer.decisions for place, layer in placed},
            View.of([(place, layer, layer.patterns.files) for place, layer in placed]),
            View.of([(place, layer, layer.patterns.directories) for place, layer in placed]),
        )

    def plus(self, layers: Sequence[Layer]) -> Rules:
        """These rules and more, in a small sieve on top of what is there, which is quickest to make."""
        together = (*self.layers, *layers)
        placed = _placed(together, len(self.layers))
        return Rules(
            together,
            self._decisions | {place: layer.decisions for place, layer in placed},
            self.files.plus([(place, layer, layer.patterns.files) for place, layer in placed]),
            self.directories.plus([(place, layer, layer.patterns.directories) for place, layer in placed]),
        )

    def without(self, *strengths: Strength) -> Rules:
        """These rules but for those of some strengths."""
        return Rules.of(layer for layer in self.layers if layer.strength not in strengths)

    def soft(self) -> Rules:
        """These rules without the hard ones."""
        if self._soft is None:
            self._soft = self.without(Strength.HARD)
        return self._soft

    def decision(self, index: int) -> Decision | None:
        """The decision of the pattern that a sieve found."""
        return self._decisions[index // _LONGEST_LIST][index % _LONGEST_LIST]


class View:
    """Rules as they look at files, or at directories: one sieve for most places, and made once."""

    __slots__ = ("_anchored", "_everywhere", "_somewhere")

    def __init__(self, everywhere: PatternIndex, anchored: tuple[tuple[int, int, KindPatterns], ...]) -> None:
        """`anchored` are sides that hold in some directories only, each with its offset and its base's length."""
        self._everywhere = everywhere
        self._anchored = anchored
        self._somewhere: dict[tuple[tuple[int, Names], ...], PatternIndex] = {}

    @classmethod
    def of(cls, sides: Sequence[tuple[int, Layer, KindPatterns]]) -> View:
        return cls(PatternIndex(_floating(sides)), _anchored(sides))

    def plus(self, sides: Sequence[tuple[int, Layer, KindPatterns]]) -> View:
        return View(self._everywhere.over(_floating(sides)), self._anchored + _anchored(sides))

    def pattern_index(self, where: str) -> PatternIndex:
        """The sieve of one directory, "" or "a/b/"."""
        found = [(offset, side.local(where[base:])) for offset, base, side in self._anchored]
        components = tuple((offset, names) for offset, names in found if names is not None)
        if not components:
            return self._everywhere
        pattern_index = self._somewhere.get(components)
        if pattern_index is None:
            if len(self._somewhere) >= _REMEMBERED:
                self._somewhere.clear()
            pattern_index = self._somewhere[components] = self._everywhere.over(components)
        return pattern_index


def _floating(sides: Sequence[tuple[int, Layer, KindPatterns]]) -> list[tuple[int, Names]]:
    return [(place * _LONGEST_LIST, side.floating) for place, _, side in sides if side.floating is not None]


def _anchored(sides: Sequence[tuple[int, Layer, KindPatterns]]) -> tuple[tuple[int, int, KindPatterns], ...]:
    return tuple((place * _LONGEST_LIST, len(layer.base), side) for place, layer, side in sides if not side.all_float)


def _placed(layers: Sequence[Layer], start: int) -> list[tuple[int, Layer]]:
    """The layers from `start` on, each with a number that is greater for a stronger one and unmoved by later ones."""
    placed = []
    for position in range(start, len(layers)):
        strength = layers[position].strength
        before = sum(layer.strength is strength for layer in layers[:position])
        placed.append((strength * _MOST_LISTS + before, layers[position]))
    return placed
