"""Orders pattern lists by their precedence, and builds for each directory an index that searches all of them."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from syncd.selection.pattern_index import NamePatterns, PatternIndex
from syncd.selection.pattern_list import KindPatterns, PatternList

_LIST_SIZE = 1 << 32  # index numbers for each list; no file holds so many patterns
_LISTS = 1 << 16  # lists of one precedence that apply together: one for each directory of a path, and none is that deep
_CACHE_SIZE = 256  # indexes for patterns that apply in some directories, such as `docs/**`


class Rule(NamedTuple):
    """A pattern and its source: "workspace.ignore", "built-in", "secrets", or a file, such as the managed one.

    A file in the workspace is named by its relative path, any other by its absolute one.
    """

    source: str
    line: int | None
    pattern: str

    def __str__(self) -> str:
        line = "" if self.line is None else f"{self.line}:"
        return f"{self.source}:{line} {self.pattern}"


class Decision(NamedTuple):
    """The decision about a path, and the rule that decided it; `None` if no rule matches.

    An included path has a rule if a negated pattern included it again (`!keep.log`).
    """

    included: bool
    rule: Rule | None


class Precedence(enum.IntEnum):
    """The order of the sources; the reasons are in `syncd/selection/selection.py`."""

    GIT = 0
    DEFAULTS = 1
    CONFIG = 2
    SYNCDIGNORE = 3
    HARD = 4
    CEILING = 5


FIRST_OF_CEILING = Precedence.CEILING * _LISTS * _LIST_SIZE  # as the index of a pattern


class Layer(NamedTuple):
    """A pattern list and the directory it belongs to, with the decision for each of its patterns."""

    precedence: Precedence
    patterns: PatternList
    base: str  # the directory that the patterns are relative to, from the repository's top, in Latin-1; "" or "a/b/"
    decisions: tuple[Decision | None, ...]  # None: the pattern only cancels earlier ones of its list


class Rules:
    """The layers that apply in some directories, with indexes. Of equal precedence, the later layer is stronger."""

    __slots__ = ("_decisions", "_without_hard_rules", "directories", "files", "layers")

    def __init__(
        self,
        layers: tuple[Layer, ...],
        decisions: dict[int, tuple[Decision | None, ...]],
        files: RuleIndexes,
        directories: RuleIndexes,
    ) -> None:
        self.layers = layers
        self.files = files
        self.directories = directories
        self._decisions = decisions
        self._without_hard_rules: Rules | None = None

    @classmethod
    def of(cls, layers: Iterable[Layer]) -> Rules:
        """Build rules with one index for all layers, which is the fastest to search."""
        numbered = _numbered(tuple(layers), 0)
        return cls(
            tuple(layer for _, layer in numbered),
            {number: layer.decisions for number, layer in numbered},
            RuleIndexes.of([(number, layer, layer.patterns.files) for number, layer in numbered]),
            RuleIndexes.of([(number, layer, layer.patterns.directories) for number, layer in numbered]),
        )

    def plus(self, layers: Sequence[Layer]) -> Rules:
        """Return the rules with more layers in a small additional index, which is the fastest to build."""
        together = (*self.layers, *layers)
        numbered = _numbered(together, len(self.layers))
        return Rules(
            together,
            self._decisions | {number: layer.decisions for number, layer in numbered},
            self.files.plus([(number, layer, layer.patterns.files) for number, layer in numbered]),
            self.directories.plus([(number, layer, layer.patterns.directories) for number, layer in numbered]),
        )

    def without(self, *precedences: Precedence) -> Rules:
        """Return the rules without the layers of these precedences."""
        return Rules.of(layer for layer in self.layers if layer.precedence not in precedences)

    def without_hard_rules(self) -> Rules:
        """Return the rules without the hard ones."""
        if self._without_hard_rules is None:
            self._without_hard_rules = self.without(Precedence.HARD)
        return self._without_hard_rules

    def decision(self, index: int) -> Decision | None:
        """Return the decision of the pattern with this index."""
        return self._decisions[index // _LIST_SIZE][index % _LIST_SIZE]


class RuleIndexes:
    """The rules about files, or about directories: one index for most locations, and cached ones for the others."""

    __slots__ = ("_anchored", "_base_index", "_local_indexes")

    def __init__(self, base_index: PatternIndex, anchored: tuple[tuple[int, int, KindPatterns], ...]) -> None:
        """Store the indexes. `anchored` lists apply in some directories, each with its offset and its base's length."""
        self._base_index = base_index
        self._anchored = anchored
        self._local_indexes: dict[tuple[tuple[int, NamePatterns], ...], PatternIndex] = {}

    @classmethod
    def of(cls, parts: Sequence[tuple[int, Layer, KindPatterns]]) -> RuleIndexes:
        return cls(PatternIndex(_unanchored(parts)), _anchored(parts))

    def plus(self, parts: Sequence[tuple[int, Layer, KindPatterns]]) -> RuleIndexes:
        return RuleIndexes(self._base_index.over(_unanchored(parts)), self._anchored + _anchored(parts))

    def pattern_index(self, location: str) -> PatternIndex:
        """Return the index of one directory, "" or "a/b/"."""
        found = [(offset, part.local(location[base:])) for offset, base, part in self._anchored]
        components = tuple((offset, names) for offset, names in found if names is not None)
        if not components:
            return self._base_index
        pattern_index = self._local_indexes.get(components)
        if pattern_index is None:
            if len(self._local_indexes) >= _CACHE_SIZE:
                self._local_indexes.clear()
            pattern_index = self._local_indexes[components] = self._base_index.over(components)
        return pattern_index


def _unanchored(parts: Sequence[tuple[int, Layer, KindPatterns]]) -> list[tuple[int, NamePatterns]]:
    return [(number * _LIST_SIZE, part.unanchored) for number, _, part in parts if part.unanchored is not None]


def _anchored(parts: Sequence[tuple[int, Layer, KindPatterns]]) -> tuple[tuple[int, int, KindPatterns], ...]:
    return tuple(
        (number * _LIST_SIZE, len(layer.base), part) for number, layer, part in parts if not part.all_unanchored
    )


def _numbered(layers: Sequence[Layer], start: int) -> list[tuple[int, Layer]]:
    """Number the layers from `start` on. A stronger layer has a greater number; layers that are added change none."""
    numbered = []
    for position in range(start, len(layers)):
        precedence = layers[position].precedence
        before = sum(layer.precedence is precedence for layer in layers[:position])
        numbered.append((precedence * _LISTS + before, layers[position]))
    return numbered
