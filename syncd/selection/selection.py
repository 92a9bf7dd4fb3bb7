"""Decides which names of a directory belong to the snapshot, and by which rule.

A walk of the workspace has a `Scope` for each directory, which decides about its children. A directory that is excluded
is not entered, so nothing in it can be included again: this is git's own rule, and it makes pruning possible.

Precedence, from the strongest:

    1. syncd's own files, by place                    nothing lifts them
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
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from msgspec import Struct

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

GIT = (".git",)  # a folder, or the file that a worktree or submodule has instead


def _built_in(file: str) -> tuple[str, ...]:
    """Return the patterns of a file beside this one, whose head says what belongs there."""
    data = pkgutil.get_data(__package__, file)
    if not data:  # pragma: no cover: it is there; nothing may be sent without it
        raise ImportError(f"the built-in rules in {file!r} are missing: install syncd again")
    return tuple(line for line in data.decode().splitlines() if line and not line.startswith("#"))


DEFAULTS = _built_in("defaults.rules")
# The folders among them that have one name wherever they are.
DIRECTORY_NAMES = tuple(
    pattern[:-1] for pattern in DEFAULTS if pattern.endswith("/") and not set(pattern[:-1]) & set("/*?[\\")
)
SECRETS = _built_in("secrets.rules")


class Rule(NamedTuple):
    """A pattern and its source: "workspace.ignore", "built-in", "secrets", or a file.

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
    FOLDED = 6  # the rules about secrets once more, for what has capital letters: their names are compared without case
    OWN = 7


class _Tail(NamedTuple):
    """The end of a pattern, which matches names: the pattern's number in its list, and atoms."""

    pattern: int
    dirs_only: bool
    atoms: tuple[str, ...]


class _Names:
    """Finds the last of several patterns that matches a name.

    Most patterns are a whole name or an extension, and are looked up; the others are one regular expression.
    """

    def __init__(self, tails: Iterable[_Tail]) -> None:
        self._names: dict[str, int] = {}
        self._extensions: dict[str, int] = {}
        others: list[_Tail] = []
        for tail in sorted(tails):  # a later one replaces its equal
            name, behind_star = literal(tail.atoms), literal(tail.atoms[1:]) or ""
            if name is not None:
                self._names[name] = tail.pattern
            elif tail.atoms[0] == STAR and behind_star.rfind(".") == 0:
                self._extensions[behind_star] = tail.pattern
            else:
                others.append(tail)
        others.reverse()  # of an alternation the first that matches counts
        self._others = [tail.pattern for tail in others]
        self._expression = re.compile("|".join(f"{regex(tail.atoms)}()" for tail in others)) if others else None

    def last(self, name: str) -> int:
        """Return the number of the last pattern that matches; -1: none does."""
        best = max(self._names.get(name, -1), self._extensions.get(name[name.rfind(".") :], -1))
        found = self._expression.fullmatch(name) if self._expression is not None else None
        return best if found is None or found.lastindex is None else max(best, self._others[found.lastindex - 1])


class PatternList:
    """The patterns of one source, independent of its directory; later ones win."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self._everywhere: list[_Tail] = []
        self._exact: dict[str, list[_Tail]] = {}  # by the one directory that they apply in
        self._headed: list[tuple[re.Pattern[str], _Tail]] = []
        self._names: dict[tuple[bool | _Tail, ...], _Names | None] = {}  # by what applies beside those
        for number, pattern in enumerate(self.patterns):
            for head, atoms in pattern.path_patterns:
                tail, path = _Tail(number, pattern.dirs_only, atoms), literal(head)
                if head == (SPAN,):
                    self._everywhere.append(tail)
                elif path is not None:
                    self._exact.setdefault(path, []).append(tail)
                else:
                    self._headed.append((re.compile(regex(head), re.DOTALL), tail))

    def names(self, location: str, is_dir: bool) -> _Names | None:
        """Return what finds the patterns that match in one directory, "" or "a/b/" from the list's own one.

        None if none applies to the files, or the directories, there.
        """
        local = [*self._exact.get(location, ()), *(tail for head, tail in self._headed if head.fullmatch(location))]
        key = is_dir, *local
        if key not in self._names:
            tails = [tail for tail in (*self._everywhere, *local) if is_dir or not tail.dirs_only]
            self._names[key] = _Names(tails) if tails else None
        return self._names[key]


@lru_cache(maxsize=256)
def pattern_list(data: bytes) -> PatternList:
    """Parse an ignore file. The result is cached: each scan reads the files again, and their bytes rarely change."""
    return PatternList(parse_file(data))


class Layer(NamedTuple):
    """A pattern list and the directory it belongs to, with the decision for each of its patterns."""

    precedence: Precedence
    patterns: PatternList
    base: str  # the directory that the patterns are relative to, from the repository's top, in Latin-1; "" or "a/b/"
    decisions: tuple[Decision | None, ...]  # None: the pattern only cancels earlier ones of its list

    def names(self, location: str, is_dir: bool) -> _Names | None:
        """Return what finds the patterns that match in one directory."""
        below = location[len(self.base) :]
        return self.patterns.names(below.lower() if self.precedence is Precedence.FOLDED else below, is_dir)


_Row = tuple[Layer, _Names]


class _Rules:
    """The layers that apply in some directories, the strongest first."""

    def __init__(self, layers: Iterable[Layer], below: Sequence[Layer] = ()) -> None:
        """`layers` are given the weakest first, and are stronger than the ordered `below` of the same precedence."""
        self.layers = tuple(sorted([*reversed([*layers]), *below], key=lambda layer: -layer.precedence))
        self._rows: dict[tuple[_Names | None, ...], list[_Row]] = {}  # the same for most directories

    def rows(self, location: str, is_dir: bool) -> list[_Row]:
        """Return the layers with patterns for the files, or the directories, in one directory, "" or "a/b/"."""
        names = tuple(layer.names(location, is_dir) for layer in self.layers)
        if names not in self._rows:
            pairs = zip(self.layers, names, strict=True)
            self._rows[names] = [(layer, found) for layer, found in pairs if found is not None]
        return self._rows[names]


def expand_folders(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns, each with one for everything below a folder of that name.

    An ignore pattern that matches a folder excludes its files by stopping the walk there. A pattern for paths has to
    match the files themselves.

    >>> expand_folders(["certs/", "!/a/b.pem"])
    ('certs/', '**/certs/**', '!/a/b.pem', '!/a/b.pem/**')
    """
    lines = []
    for pattern in patterns:
        folder = pattern.removeprefix("!").removesuffix("/")
        below = f"{folder}/**" if "/" in folder else f"**/{folder}/**"
        lines += [pattern, f"!{below}" if pattern.startswith("!") else below]
    return tuple(lines)


class PathPatterns:
    """Tells for a file's path if the last pattern that matches it is not negated.

    The patterns are those of `workspace.allow_secrets`, `sandbox.setup_files`, or `apply --include`.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        lines = tuple(patterns)
        parsed = [parse_line(as_latin1(line), number) for number, line in enumerate(expand_folders(lines), 1)]
        self._patterns = PatternList([pattern for pattern in parsed if pattern is not None])
        self._folders = {folder for line in lines for folder in line.split("/")[:-1]}

    def __contains__(self, path: str) -> bool:
        location, slash, name = as_latin1(path).rpartition("/")
        names = self._patterns.names(location + slash, is_dir=False)
        last = -1 if names is None else names.last(name)
        return last >= 0 and not self._patterns.patterns[last].negated

    def leads_into(self, folder: str) -> bool:
        """Return True if a pattern has the name of this folder before a slash, so that it may match what is in it."""
        return folder.rpartition("/")[2] in self._folders


_GIT = ".git"
GITIGNORE = ".gitignore"
SYNCDIGNORE = ".syncdignore"
WORKTREEINCLUDE = ".worktreeinclude"
RULE_FILES = (GITIGNORE, SYNCDIGNORE, WORKTREEINCLUDE)
BUILT_IN, OWN_FILES = "built-in", "syncd's own files"  # as the source of a rule

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

    Their patterns are gitignore's, relative to the workspace. `own_folders` are the absolute paths of what
    is syncd's own, and `own_files` returns those at this moment; nothing lifts them.
    """

    def __init__(
        self,
        *,
        ignore: tuple[str, ...] = (),
        use_gitignore: bool = True,
        include_git: bool = False,
        upload_secrets: bool = False,
        allow_secrets: tuple[str, ...] = (),
        own_folders: tuple[str, ...] = (),
        own_files: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self.uses_gitignore = use_gitignore
        self.own_folders = own_folders
        self.own_files = own_files
        layers = [
            _pattern_layer(Precedence.DEFAULTS, BUILT_IN, DEFAULTS),
            _pattern_layer(Precedence.CONFIG, "workspace.ignore", ignore),
        ]
        if not upload_secrets:
            lines = SECRETS + tuple(f"!{pattern}" for pattern in expand_folders(allow_secrets))
            layers.append(_secrets_layer(Precedence.HARD, lines))
            layers.append(_secrets_layer(Precedence.FOLDED, tuple(line.lower() for line in lines)))
        if not include_git:
            layers.append(_pattern_layer(Precedence.HARD, BUILT_IN, GIT))
        self._rules = _Rules(layers)

    def root(self, outer: OuterRules = NO_OUTER_RULES) -> Scope:
        """Return the scope of the workspace's directory. Without `use_gitignore`, git's outer rules are ignored too."""
        rules = self._rules
        if outer.own_paths:
            own = _pattern_layer(Precedence.OWN, OWN_FILES, tuple(map(_pattern_of, outer.own_paths)))
            rules = _Rules([own], rules.layers)
        if not self.uses_gitignore:
            return Scope(rules, "", (SYNCDIGNORE,))
        layers = [_file_layer(Precedence.GIT, each.source, _prefix(each.folder), each.data) for each in outer.files]
        top = _prefix(outer.workspace)
        if top:
            layers = _without_exclusion_of(outer.workspace, layers)
            rules = _Rules((), [layer._replace(base=top) for layer in rules.layers])
        return Scope(_Rules(layers, rules.layers) if layers else rules, top, RULE_FILES, top)


class Scope:
    """The rules that apply in one directory. It is immutable, so threads may share it.

    `ignore_files` are the names of the files to read there and to pass to `with_files`.
    """

    __slots__ = ("_has_capitals", "_location", "_rows", "_rules", "_top", "ignore_files")

    def __init__(self, rules: _Rules, location: str, ignore_files: tuple[str, ...], top: str = "") -> None:
        self._rules = rules
        self._location = location  # from the repository's top
        self._top = top  # the workspace's own location
        self.ignore_files = ignore_files
        self._has_capitals = location != location.lower()
        # Found when they are first needed; if two threads find them, the results are equal.
        self._rows: dict[bool, list[_Row]] = {}

    def enter(self, name: str) -> Scope:
        """Return the scope of an included subdirectory, without the rules of its own ignore files."""
        location = f"{self._location}{as_latin1(name)}/"
        if name == _GIT:
            # It is included by include_git. Git's rules are about the work tree: `logs/` must not exclude `.git/logs`.
            layers = [layer for layer in self._rules.layers if layer.precedence > Precedence.DEFAULTS]
            return Scope(_Rules((), layers), location, (SYNCDIGNORE,), self._top)
        names = self.ignore_files
        if self._location == self._top:
            names = tuple(file for file in names if file != WORKTREEINCLUDE)
        return Scope(self._rules, location, names, self._top)

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
        return Scope(_Rules(layers, self._rules.layers), self._location, self.ignore_files, self._top)

    def decide(self, name: str, is_dir: bool) -> Decision:
        """Decide about a child of this directory. A symlink is not a directory, whatever its target is."""
        text = name if name.isascii() else as_latin1(name)
        rows = self._rows.get(is_dir)
        if rows is None:
            rows = self._rows[is_dir] = self._rules.rows(self._location, is_dir)
        folded = text.lower()
        has_capitals = self._has_capitals or folded != text
        brought_in = None
        for layer, names in rows:
            is_folded = layer.precedence is Precedence.FOLDED
            if is_folded and not has_capitals:
                continue
            number = names.last(folded if is_folded else text)
            decision = layer.decisions[number] if number >= 0 else None
            if decision is None:  # an exception to a rule of the layer: the weaker ones decide
                continue
            if layer.precedence is Precedence.WORKTREEINCLUDE:
                brought_in = decision
            elif brought_in is not None and not decision.included:
                return brought_in  # it brings in nothing that is included anyway
            else:
                return decision
        return INCLUDED


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
            above = _Rules([layer for layer in layers if location.startswith(layer.base)])
            decision = Scope(above, location, ()).decide(name, is_dir=True)
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
    rules = [(Rule(source, pattern.line, pattern.text), pattern.negated) for pattern in patterns.patterns]
    if precedence is Precedence.WORKTREEINCLUDE:  # what its negated patterns name is left to git's rules
        decisions = [None if negated else Decision(True, rule) for rule, negated in rules]
    else:
        decisions = [Decision(negated, rule) for rule, negated in rules]
    return Layer(precedence, patterns, base, tuple(decisions))


def _pattern_layer(precedence: Precedence, source: str, lines: tuple[str, ...]) -> Layer:
    parsed = (parse_line(as_latin1(line), number) for number, line in enumerate(lines, 1))
    patterns = PatternList([pattern for pattern in parsed if pattern is not None])
    decisions = (Decision(pattern.negated, Rule(source, None, pattern.text)) for pattern in patterns.patterns)
    return Layer(precedence, patterns, "", tuple(decisions))


def _secrets_layer(precedence: Precedence, lines: tuple[str, ...]) -> Layer:
    """Return the rules about secrets. Their exceptions only cancel them, and do not include a path."""
    layer = _pattern_layer(precedence, "secrets", lines)
    return layer._replace(decisions=tuple(None if d is None or d.included else d for d in layer.decisions))
