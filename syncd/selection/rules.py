"""Orders the patterns of all sources by their precedence, and finds the strongest one that matches a name.

PatternList  the patterns of one source, by the directories that they apply in
Layer        such a list with its place, its precedence and its decisions
Rules        the layers of a directory; `index` finds those patterns that apply in it
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from syncd.selection.gitignore import SPAN, STAR, Pattern, as_latin1, literal, parse_file, parse_line, regex


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
    WORKTREEINCLUDE = 1
    DEFAULTS = 2
    CONFIG = 3
    SYNCDIGNORE = 4
    HARD = 5
    CEILING = 6


class Match(NamedTuple):
    """A pattern that matches; the greater, the stronger. No decision: it only cancels others of its precedence."""

    precedence: int
    layer: int
    pattern: int
    decision: Decision | None


NO_MATCH = Match(-1, 0, 0, None)


class Tail(NamedTuple):
    """The end of a pattern, which matches names: the pattern's number in its list, and atoms."""

    pattern: int
    dirs_only: bool
    atoms: tuple[str, ...]


class PatternList:
    """The patterns of one source, independent of its directory; later ones win.

    Those that apply in one directory only, as most others, are found by its path.
    """

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self.everywhere: list[Tail] = []
        self._exact: dict[str, list[Tail]] = {}
        self._headed: list[tuple[re.Pattern[str], Tail]] = []
        for number, pattern in enumerate(self.patterns):
            for head, atoms in pattern.path_patterns:
                tail, path = Tail(number, pattern.dirs_only, atoms), literal(head)
                if head == (SPAN,):
                    self.everywhere.append(tail)
                elif path is not None:
                    self._exact.setdefault(path, []).append(tail)
                else:
                    self._headed.append((re.compile(regex(head), re.DOTALL), tail))

    def local(self, location: str) -> list[Tail]:
        """Return the patterns that apply in one directory, "" or "a/b/" from the list's own one, but not in all."""
        return [*self._exact.get(location, ()), *(tail for head, tail in self._headed if head.fullmatch(location))]

    @property
    def has_local(self) -> bool:
        """True if some patterns do not apply in all directories."""
        return bool(self._exact or self._headed)


@lru_cache(maxsize=256)
def pattern_list(data: bytes) -> PatternList:
    """Parse an ignore file. The result is cached: each scan reads the files again, and their bytes rarely change."""
    return PatternList(parse_file(data))


_Candidate = tuple[Match, tuple[str, ...]]


class PatternIndex:
    """Finds the strongest of many patterns that match a name.

    Most patterns are a whole name or an extension, and are looked up; the others are one regular expression. The
    patterns of `below` are searched too, so a directory with its own rules needs a small index, not a copy.
    """

    def __init__(self, candidates: Iterable[_Candidate], below: PatternIndex | None = None) -> None:
        self._below = below
        self._names: dict[str, Match] = {}
        self._extensions: dict[str, Match] = {}
        others: list[_Candidate] = []
        for match, atoms in sorted(candidates):  # a stronger one replaces its equal
            name, behind_star = literal(atoms), literal(atoms[1:]) or ""
            if name is not None:
                self._names[name] = match
            elif atoms[0] == STAR and behind_star.rfind(".") == 0:
                self._extensions[behind_star] = match
            else:
                others.append((match, atoms))
        others.reverse()  # of an alternation the first that matches counts
        self._others = [match for match, _ in others]
        self._expression = re.compile("|".join(f"{regex(atoms)}()" for _, atoms in others)) if others else None

    def strongest(self, name: str) -> Match:
        """Return the strongest pattern that matches, or `NO_MATCH`."""
        best = self._names.get(name, NO_MATCH)
        by_extension = self._extensions.get(name[name.rfind(".") :])
        if by_extension is not None:
            best = max(best, by_extension)
        found = self._expression.fullmatch(name) if self._expression is not None else None
        if found is not None and found.lastindex is not None:
            best = max(best, self._others[found.lastindex - 1])
        return best if self._below is None else max(best, self._below.strongest(name))


@lru_cache(maxsize=256)
def _local_index(candidates: tuple[_Candidate, ...], below: PatternIndex) -> PatternIndex:
    """Return an index with patterns that apply in some directories only, such as `docs/**`; these share it."""
    return PatternIndex(candidates, below)


class Layer(NamedTuple):
    """A pattern list and the directory it belongs to, with the decision for each of its patterns."""

    precedence: Precedence
    patterns: PatternList
    base: str  # the directory that the patterns are relative to, from the repository's top, in Latin-1; "" or "a/b/"
    decisions: tuple[Decision | None, ...]  # None: the pattern only cancels earlier ones of its list


class Rules:
    """The layers that apply in some directories. Of equal precedence, the later layer is stronger.

    One index for all layers is the fastest to search; one for `layers`, over that of the rules `below`, the fastest to
    build.
    """

    def __init__(self, layers: Sequence[Layer], below: Rules | None = None) -> None:
        self.layers: tuple[Layer, ...] = (*(below.layers if below else ()), *layers)
        first = len(self.layers) - len(layers)
        tails = [(at, layer, tail) for at, layer in enumerate(layers, first) for tail in layer.patterns.everywhere]
        self.common: dict[bool, PatternIndex] = {}
        """The indexes of what applies in all directories, for files and for directories."""
        for is_dir in (False, True):
            self.common[is_dir] = PatternIndex(_candidates(tails, is_dir), below.common[is_dir] if below else None)
        self._local_layers = [(at, layer) for at, layer in enumerate(self.layers) if layer.patterns.has_local]

    def without(self, *precedences: Precedence) -> Rules:
        """Return the rules without the layers of these precedences."""
        return Rules([layer for layer in self.layers if layer.precedence not in precedences])

    @cached_property
    def without_hard_rules(self) -> Rules:
        """The rules without the hard ones."""
        return self.without(Precedence.HARD)

    @cached_property
    def without_worktreeinclude(self) -> Rules:
        """The rules without those of `.worktreeinclude`."""
        return self.without(Precedence.WORKTREEINCLUDE)

    def index(self, location: str, is_dir: bool) -> PatternIndex:
        """Return the index for the files, or the directories, in one directory, "" or "a/b/"."""
        tails = [
            (at, layer, tail)
            for at, layer in self._local_layers
            for tail in layer.patterns.local(location[len(layer.base) :])
        ]
        local = tuple(_candidates(tails, is_dir))
        return _local_index(local, self.common[is_dir]) if local else self.common[is_dir]


def _candidates(tails: Iterable[tuple[int, Layer, Tail]], is_dir: bool) -> Iterator[_Candidate]:
    for number, layer, tail in tails:
        if is_dir or not tail.dirs_only:
            yield Match(layer.precedence, number, tail.pattern, layer.decisions[tail.pattern]), tail.atoms


def expand_folders(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns, each with one for everything below a folder of that name.

    An ignore pattern that matches a folder excludes its files by stopping the walk there. A pattern for paths has to
    match the files themselves.

    >>> expand_folders(["certs/", "/a/b.pem"])
    ('certs/', '**/certs/**', '/a/b.pem', '/a/b.pem/**')
    """
    lines = []
    for pattern in patterns:
        folder = pattern.removesuffix("/")
        lines += [pattern, f"{folder}/**" if "/" in folder else f"**/{folder}/**"]
    return tuple(lines)


class PathPatterns:
    """Tells for a file's path if a pattern matches it: `workspace.allow_secrets`, or `apply --include`."""

    def __init__(self, patterns: Iterable[str]) -> None:
        parsed = [parse_line(as_latin1(line), number) for number, line in enumerate(expand_folders(patterns), 1)]
        found = PatternList([pattern for pattern in parsed if pattern is not None])
        decisions = tuple(Decision(True, None) for _ in found.patterns)
        self._rules = Rules([Layer(Precedence.CONFIG, found, "", decisions)])

    def __contains__(self, path: str) -> bool:
        location, slash, name = as_latin1(path).rpartition("/")
        return self._rules.index(location + slash, is_dir=False).strongest(name) is not NO_MATCH
