"""Decides which names of a directory belong to the snapshot, and by which rule.

A walk of the workspace has a `Scope` for each directory, which decides about its children. A directory that is excluded
is not entered, so nothing in it can be included again: this is git's own rule, and it makes pruning possible.

Precedence, from the strongest:

    1. syncd's own files, by place, and               nothing lifts them
       ceiling.ignore of the managed file             the administrator's, for everyone
    2. hard rules: `.git` and secrets by name         no file can lift them, only [workspace] of the configuration
    3. .syncdignore, the deepest first                the user's wishes for this workspace
    4. workspace.ignore of the configuration
    5. built-in defaults                              above .gitignore: a whitelist there (`*`, `!*/`, `!*.py`) would
                                                      include node_modules again
    6. .worktreeinclude at the workspace's top        names what git's rules exclude and is needed all the same
    7. .gitignore, the deepest first
    8. git's own exclude files

If the top of the repository is above the workspace, the `.gitignore` files between the two apply as well, and the
patterns of git's exclude files are relative to that top. So locations are relative to the repository's top.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from msgspec import Struct

from syncd.selection.builtin_rules import DEFAULTS, GIT, SECRETS
from syncd.selection.gitignore import (
    SPAN,
    STAR,
    Pattern,
    as_latin1,
    from_latin1,
    literal,
    parse_file,
    parse_line,
    regex,
)


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
    """The order of the sources; see the head of this module."""

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


_GIT = ".git"
GITIGNORE = ".gitignore"
SYNCDIGNORE = ".syncdignore"
WORKTREEINCLUDE = ".worktreeinclude"
RULE_FILES = (GITIGNORE, SYNCDIGNORE, WORKTREEINCLUDE)
OWN_FILES = "syncd's own files"  # as the source of a rule

_PRECEDENCES = {
    GITIGNORE: Precedence.GIT,
    SYNCDIGNORE: Precedence.SYNCDIGNORE,
    WORKTREEINCLUDE: Precedence.WORKTREEINCLUDE,
}
INCLUDED = Decision(included=True, rule=None)


class OuterFile(Struct, frozen=True):
    """An ignore file outside of the workspace's own directories; its rules are shown with `source` as their file."""

    source: str
    folder: str  # the directory that its patterns are relative to, from the repository's top; "" is the top
    data: bytes


class OuterRules(Struct, frozen=True):
    """Git's rules from outside of the workspace's own directories, the weakest file first, and syncd's own files.

    `workspace` is the workspace's path from the repository's top; "" if it is the top, or in no repository. `own_paths`
    are those of syncd's own files that are in the workspace, `own_inodes` device and inode of all of them.
    """

    workspace: str = ""
    files: tuple[OuterFile, ...] = ()
    own_paths: tuple[str, ...] = ()
    own_inodes: frozenset[tuple[int, int]] = frozenset()


NO_OUTER_RULES = OuterRules()


class Selection:
    """The rules that apply in the whole workspace, by the keys of [workspace] that select paths.

    Their patterns are gitignore's, relative to the workspace. `always_ignored` are patterns of the same kind that
    nothing lifts, each with its place. `own_folders` are the absolute paths of what is syncd's own, and `own_files`
    returns those at this moment; nothing lifts them either.
    """

    def __init__(
        self,
        *,
        ignore: tuple[str, ...] = (),
        use_gitignore: bool = True,
        include_git: bool = False,
        upload_secrets: bool = False,
        allow_secrets: tuple[str, ...] = (),
        always_ignored: tuple[Rule, ...] = (),
        own_folders: tuple[str, ...] = (),
        own_files: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self.uses_gitignore = use_gitignore
        self.own_folders = own_folders
        self.own_files = own_files
        layers = [
            _pattern_layer(Precedence.DEFAULTS, "built-in", DEFAULTS),
            _pattern_layer(Precedence.CONFIG, "workspace.ignore", ignore),
        ]
        self._folded_secrets: Rules | None = None
        if not upload_secrets:
            lines = SECRETS + tuple(f"!{pattern}" for pattern in expand_folders(allow_secrets))
            layers.append(_secrets_layer(lines))
            self._folded_secrets = Rules([_secrets_layer(tuple(line.lower() for line in lines))])
        if not include_git:
            layers.append(_pattern_layer(Precedence.HARD, "built-in", GIT))
        if always_ignored:
            layers.append(_ceiling_layer(always_ignored))
        self._rules = Rules(layers)

    def root(self, outer: OuterRules = NO_OUTER_RULES) -> Scope:
        """Return the scope of the workspace's directory. Without `use_gitignore`, git's outer rules are ignored too."""
        rules = self._rules
        if outer.own_paths:
            own = tuple(Rule(OWN_FILES, None, _pattern_of(path)) for path in outer.own_paths)
            rules = Rules([*rules.layers, _ceiling_layer(own)])
        if not self.uses_gitignore:
            return Scope(rules, self._folded_secrets, "", (SYNCDIGNORE,))
        names = RULE_FILES
        layers = [_file_layer(Precedence.GIT, each.source, _prefix(each.folder), each.data) for each in outer.files]
        if not outer.workspace:
            return Scope(Rules(layers, rules) if layers else rules, self._folded_secrets, "", names)
        layers = _without_exclusion_of(outer.workspace, layers)
        top = _prefix(outer.workspace)
        based = [layer._replace(base=top) for layer in rules.layers]
        return Scope(Rules([*based, *layers]), self._folded_secrets, top, names, top)


class Scope:
    """The rules that apply in one directory. It is immutable, so threads may share it.

    `ignore_files` are the names of the files to read there and to pass to `with_files`.
    """

    __slots__ = (
        "_folded_indexes",
        "_folded_secrets",
        "_has_capitals",
        "_indexes",
        "_location",
        "_rules",
        "_top",
        "ignore_files",
    )

    def __init__(
        self, rules: Rules, folded_secrets: Rules | None, location: str, ignore_files: tuple[str, ...], top: str = ""
    ) -> None:
        self._rules = rules
        self._folded_secrets = folded_secrets  # for what has capital letters: secrets' names are compared without case
        self._location = location  # from the repository's top
        self._top = top  # the workspace's own location
        self.ignore_files = ignore_files
        self._has_capitals = location != location.lower()
        # Built when they are first needed; if two threads build one, the results are equal.
        self._indexes: dict[bool, PatternIndex] = {}
        self._folded_indexes: dict[bool, PatternIndex] = {}

    @property
    def path(self) -> str:
        """Return the directory's path relative to the workspace; "" is the workspace itself."""
        return from_latin1(self._location[len(self._top) : -1])

    def enter(self, name: str) -> Scope:
        """Return the scope of an included subdirectory, without the rules of its own ignore files."""
        location = f"{self._location}{as_latin1(name)}/"
        if name == _GIT:
            # It is included by include_git. Git's rules are about the work tree: `logs/` must not exclude `.git/logs`.
            rules = self._rules.without(Precedence.GIT, Precedence.WORKTREEINCLUDE, Precedence.DEFAULTS)
            return Scope(rules, self._folded_secrets, location, (SYNCDIGNORE,), self._top)
        names = self.ignore_files
        if self._location == self._top:
            names = tuple(file for file in names if file != WORKTREEINCLUDE)
        return Scope(self._rules, self._folded_secrets, location, names, self._top)

    def with_files(self, files: Mapping[str, bytes]) -> Scope:
        """Return the scope with the rules of the directory's ignore files; names not in `ignore_files` are ignored."""
        layers = []
        for name in self.ignore_files:
            data = files.get(name)
            if data is not None:
                source = from_latin1(self._location[len(self._top) :]) + name
                layers.append(_file_layer(_PRECEDENCES[name], source, self._location, data))
        if not layers:
            return self
        rules = Rules(layers, self._rules) if self._location != self._top else Rules([*self._rules.layers, *layers])
        return Scope(rules, self._folded_secrets, self._location, self.ignore_files, self._top)

    def decide(self, name: str, is_dir: bool) -> Decision:
        """Decide about a child of this directory. A symlink is not a directory, whatever its target is."""
        text = name if name.isascii() else as_latin1(name)
        index = self._indexes.get(is_dir)
        if index is None:
            index = self._indexes[is_dir] = self._rules.index(self._location, is_dir)
        match = index.strongest(text)
        folded = text.lower()
        if (folded != text or self._has_capitals) and match.precedence < Precedence.CEILING:
            secret = self._folded_secret(folded, is_dir)
            if secret is not None:
                return secret
        if match is NO_MATCH:
            return INCLUDED
        if match.precedence == Precedence.WORKTREEINCLUDE:
            without = self._decide_by(self._rules.without_worktreeinclude, name, is_dir)
            # It brings in nothing that is included anyway.
            return without if match.decision is None or without.included else match.decision
        if match.decision is None:  # an exception to a hard rule: the other rules decide
            return self._decide_by(self._rules.without_hard_rules, name, is_dir)
        return match.decision

    def _decide_by(self, rules: Rules, name: str, is_dir: bool) -> Decision:
        """Decide by fewer rules; no name is a secret by them alone."""
        return Scope(rules, None, self._location, self.ignore_files, self._top).decide(name, is_dir)

    def _folded_secret(self, folded: str, is_dir: bool) -> Decision | None:
        """Return the decision of the rules about secrets on a name in lower case; None if it is none."""
        if self._folded_secrets is None:
            return None
        index = self._folded_indexes.get(is_dir)
        if index is None:
            location = self._location[len(self._top) :].lower()
            index = self._folded_indexes[is_dir] = self._folded_secrets.index(location, is_dir)
        return index.strongest(folded).decision


def _pattern_of(path: str) -> str:
    """Return the pattern that matches this path only; spaces at its end count."""
    return "/" + re.sub(r"([\\*?\[ ])", r"\\\1", path)


def _prefix(folder: str) -> str:
    return f"{as_latin1(folder)}/" if folder else ""


def _without_exclusion_of(workspace: str, layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers without the patterns that exclude the workspace itself, or a folder above it.

    The user configured this workspace, so these patterns cannot be meant for it; all others still apply.
    """
    layers = list(layers)
    location = ""
    for name in workspace.split("/"):
        while True:
            above = Rules([layer for layer in layers if location.startswith(layer.base)])
            decision = Scope(above, None, location, ()).decide(name, is_dir=True)
            if decision.included:
                break
            layers = [_without_rule(layer, decision.rule) for layer in layers]
        location += f"{as_latin1(name)}/"
    return layers


def _without_rule(layer: Layer, rule: Rule | None) -> Layer:
    """Return the layer without the rule, on all its lines."""
    removed = rule and (rule.source, rule.pattern)
    rules = [decision and decision.rule for decision in layer.decisions]
    kept = [at for at, each in enumerate(rules) if each is None or (each.source, each.pattern) != removed]
    if len(kept) == len(layer.decisions):
        return layer
    patterns = PatternList([layer.patterns.patterns[at] for at in kept])
    return layer._replace(patterns=patterns, decisions=tuple(layer.decisions[at] for at in kept))


def _file_layer(precedence: Precedence, source: str, base: str, data: bytes) -> Layer:
    patterns = pattern_list(data)
    rules = [Rule(source, pattern.line, pattern.text) for pattern in patterns.patterns]
    excludes = [not pattern.negated for pattern in patterns.patterns]
    if precedence is Precedence.WORKTREEINCLUDE:  # what its negated patterns name is left to git's rules
        decisions = [Decision(True, rule) if names else None for rule, names in zip(rules, excludes, strict=True)]
    else:
        decisions = [Decision(not leaves, rule) for rule, leaves in zip(rules, excludes, strict=True)]
    return Layer(precedence, patterns, base, tuple(decisions))


def _pattern_layer(precedence: Precedence, source: str, lines: tuple[str, ...]) -> Layer:
    parsed = (parse_line(as_latin1(line), number) for number, line in enumerate(lines, 1))
    patterns = PatternList([pattern for pattern in parsed if pattern is not None])
    decisions = (Decision(pattern.negated, Rule(source, None, pattern.text)) for pattern in patterns.patterns)
    return Layer(precedence, patterns, "", tuple(decisions))


def _ceiling_layer(rules: tuple[Rule, ...]) -> Layer:
    parsed = ((rule, parse_line(as_latin1(rule.pattern), number)) for number, rule in enumerate(rules, 1))
    valid = [(rule, pattern) for rule, pattern in parsed if pattern is not None]
    patterns = PatternList([pattern for _, pattern in valid])
    return Layer(Precedence.CEILING, patterns, "", tuple(Decision(False, rule) for rule, _ in valid))


def _secrets_layer(lines: tuple[str, ...]) -> Layer:
    """Return the hard rules about secrets. Their exceptions only cancel them, and do not include a path."""
    layer = _pattern_layer(Precedence.HARD, "secrets", lines)
    return layer._replace(decisions=tuple(None if d is None or d.included else d for d in layer.decisions))
