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


class Match(NamedTuple):
    """A pattern that matches; the greater, the stronger. No decision: it is an exception that only cancels others."""

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

    Those that apply in some directories only are found by the directory's path or its last name, so the cost of a
    directory does not depend on how many there are.
    """

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self.everywhere: list[Tail] = []
        self._exact: dict[str, list[Tail]] = {}
        self._headed: dict[str | None, list[tuple[re.Pattern[str], Tail]]] = {}
        for number, pattern in enumerate(self.patterns):
            for head, atoms in pattern.path_patterns:
                tail, path = Tail(number, pattern.dirs_only, atoms), literal(head)
                if head == (SPAN,):
                    self.everywhere.append(tail)
                elif path is not None:
                    self._exact.setdefault(path, []).append(tail)
                else:
                    found = self._headed.setdefault(_last_name(head), [])
                    found.append((re.compile(regex(head), re.DOTALL), tail))

    def local(self, location: str) -> list[Tail]:
        """Return the patterns that apply in one directory, "" or "a/b/" from the list's own one, but not in all."""
        found = self._exact.get(location, [])
        name = location[location.rfind("/", 0, -1) + 1 : -1]
        for head, tail in (*self._headed.get(name, ()), *self._headed.get(None, ())):
            if head.fullmatch(location):
                found = [*found, tail]
        return found

    @property
    def has_local(self) -> bool:
        """True if some patterns do not apply in all directories."""
        return bool(self._exact or self._headed)


def _last_name(head: tuple[str, ...]) -> str | None:
    """Return the name of the directories that a head matches; None if it matches several."""
    name: list[str] = []
    for atom in reversed(head[:-1]):
        if atom in ("/", SPAN):
            break
        name.insert(0, atom)
    return literal(name) if head[-1] == "/" else None


@lru_cache(maxsize=256)
def pattern_list(data: bytes) -> PatternList:
    """Parse an ignore file. The result is cached: each scan reads the files again, and their bytes rarely change."""
    return PatternList(parse_file(data))


_Candidate = tuple[Match, tuple[str, ...]]
_Group = tuple[re.Pattern[str], tuple[Match, ...]]


class PatternIndex:
    """Finds the strongest of many patterns that match a name.

    Most patterns are a whole name or an extension, and are looked up. The others are regular expressions, of which only
    those are tried that begin or end with the name's character. The patterns of `below` are searched too, so a
    directory with its own rules needs a small index, not a copy.
    """

    def __init__(self, candidates: Iterable[_Candidate], below: PatternIndex | None = None) -> None:
        self._below = below
        self._names: dict[str, Match] = {}
        self._extensions: dict[str, Match] = {}
        beginning: dict[str, list[_Candidate]] = {}
        ending: dict[str, list[_Candidate]] = {}
        for candidate in sorted(candidates):  # a stronger one replaces its equal
            match, atoms = candidate
            name, behind_star = literal(atoms), literal(atoms[1:]) or ""
            if name is not None:
                self._names[name] = match
            elif atoms[0] == STAR and behind_star.rfind(".") == 0:
                self._extensions[behind_star] = match
            elif len(atoms[0]) == 1:
                beginning.setdefault(atoms[0], []).append(candidate)
            else:
                ending.setdefault(atoms[-1] if len(atoms[-1]) == 1 else "", []).append(candidate)
        self._beginning = {character: _group(group) for character, group in beginning.items()}
        self._ending = {character: _group(group) for character, group in ending.items()}
        self._anywhere = self._ending.pop("", None)

    def strongest(self, name: str) -> Match:
        """Return the strongest pattern that matches, or `NO_MATCH`."""
        best = self._names.get(name, NO_MATCH)
        by_extension = self._extensions.get(name[name.rfind(".") :])
        if by_extension is not None and by_extension > best:
            best = by_extension
        group = self._beginning.get(name[0])
        if group is not None:
            best = max(best, _match(group, name))
        group = self._ending.get(name[-1])
        if group is not None:
            best = max(best, _match(group, name))
        if self._anywhere is not None:
            best = max(best, _match(self._anywhere, name))
        return best if self._below is None else max(best, self._below.strongest(name))


def _match(group: _Group, name: str) -> Match:
    expression, matches = group
    found = expression.fullmatch(name)
    return NO_MATCH if found is None or found.lastindex is None else matches[found.lastindex - 1]


def _group(candidates: list[_Candidate]) -> _Group:
    """Return several patterns as one regular expression, the strongest first, and the match of each."""
    strongest_first = candidates[::-1]
    expression = re.compile("|".join(f"({regex(atoms)})" for _, atoms in strongest_first))
    return expression, tuple(match for match, _ in strongest_first)


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
        self._local: dict[tuple[bool, tuple[_Candidate, ...]], PatternIndex] = {}

    def without(self, *precedences: Precedence) -> Rules:
        """Return the rules without the layers of these precedences."""
        return Rules([layer for layer in self.layers if layer.precedence not in precedences])

    @cached_property
    def without_hard_rules(self) -> Rules:
        """The rules without the hard ones."""
        return self.without(Precedence.HARD)

    def index(self, location: str, is_dir: bool) -> PatternIndex:
        """Return the index for the files, or the directories, in one directory, "" or "a/b/"."""
        tails = [
            (at, layer, tail)
            for at, layer in self._local_layers
            for tail in layer.patterns.local(location[len(layer.base) :])
        ]
        local = tuple(_candidates(tails, is_dir)) if tails else ()
        if not local:
            return self.common[is_dir]
        found = self._local.get((is_dir, local))
        if found is None:
            if len(self._local) >= _CACHE_SIZE:
                self._local.clear()
            found = self._local[is_dir, local] = PatternIndex(local, self.common[is_dir])
        return found


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
