"""Decides what belongs in the snapshot: which names of a directory are included, and by which rule.

Whoever walks the workspace carries a `Scope` along, one per directory, and asks it about each child. A directory that
is left out is not entered, so nothing in it can be brought back: git's own rule, and what makes pruning possible.

Precedence, from the strongest:

    1. hard rules: `.git` and secrets                 no file can lift them, only [workspace] of the configuration
    2. .syncdignore, the deepest first                what this person wants for this workspace
    3. workspace.ignore of the configuration
    4. built-in defaults                              over .gitignore, or a whitelist (`*`, `!*/`, `!*.py`) in it
    5. .gitignore, the deepest first                  would bring node_modules back
    6. git's own exclude files
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from syncd.policy.builtin_rules import DEFAULTS, GIT, SECRETS
from syncd.policy.gitignore import parse_line, spelled, unspelled
from syncd.policy.ignore_list import IgnoreList, Side, ignore_list
from syncd.policy.sieve import NOBODY, Names, Sieve

__all__ = ["Decision", "Rule", "Scope", "Selection", "SelectionSettings"]

_GIT = ".git"
_GITIGNORE = ".gitignore"
_SYNCDIGNORE = ".syncdignore"
_REMEMBERED = 512  # sieves, each some 30 KiB


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


INCLUDED = Decision(included=True, rule=None)


@dataclass(frozen=True)
class SelectionSettings:
    """The keys of [workspace] that say what belongs; `ignore` are gitignore patterns relative to the workspace."""

    ignore: tuple[str, ...] = ()
    use_gitignore: bool = True
    include_git: bool = False
    upload_secrets: bool = False


class _Layer(NamedTuple):
    """An ignore list at its place in the workspace, with the decision for each of its patterns."""

    patterns: IgnoreList
    base: str  # the directory the patterns are relative to, spelled; "" or "a/b/"
    decisions: tuple[Decision | None, ...]  # None: this pattern only takes back what an earlier one of its list said


class _Order(NamedTuple):
    """The layers in force, each group from the weakest; see the head of this module."""

    git: tuple[_Layer, ...]
    defaults: tuple[_Layer, ...]
    config: tuple[_Layer, ...]
    syncdignore: tuple[_Layer, ...]
    hard: tuple[_Layer, ...]

    def layers(self) -> list[_Layer]:
        return [layer for group in self for layer in group]


_Parts = tuple[tuple[int, Names], ...]


class _View:
    """The layers of an order as they look at files, or at directories: one sieve for most places, and made once."""

    __slots__ = ("_anchored", "_everywhere", "_made", "_plain")

    def __init__(self, sides: Sequence[tuple[_Layer, Side]], made: dict[_Parts, Sieve]) -> None:
        everywhere: list[tuple[int, Names]] = []
        self._anchored: list[tuple[int, int, Side]] = []
        offset = 0
        for layer, side in sides:
            if side.floating is not None:
                everywhere.append((offset, side.floating))
            if not side.all_float:
                self._anchored.append((offset, len(layer.base), side))
            offset += len(layer.decisions)
        self._everywhere = tuple(everywhere)
        self._made = made
        self._plain: Sieve | None = None

    def sieve(self, where: str) -> Sieve:
        """The sieve of one directory."""
        found = [(offset, side.local(where[base:])) for offset, base, side in self._anchored]
        local = tuple((offset, names) for offset, names in found if names is not None)
        if local:
            return self._sieve_of(self._everywhere + local)
        if self._plain is None:
            self._plain = self._sieve_of(self._everywhere)
        return self._plain

    def _sieve_of(self, parts: _Parts) -> Sieve:
        sieve = self._made.get(parts)
        if sieve is None:
            if len(self._made) >= _REMEMBERED:
                self._made.clear()
            sieve = self._made[parts] = Sieve(parts)
        return sieve


class _Rules:
    """An order made ready to be asked, shared by all directories in which the same ignore files are in force."""

    __slots__ = ("_made", "decisions", "directories", "files", "order")

    def __init__(self, order: _Order, made: dict[_Parts, Sieve]) -> None:
        self.order = order
        self._made = made  # equal for equal ignore files, wherever they are
        layers = order.layers()
        self.decisions = [decision for layer in layers for decision in layer.decisions]
        self.files = _View([(layer, layer.patterns.files) for layer in layers], made)
        self.directories = _View([(layer, layer.patterns.directories) for layer in layers], made)

    def but(self, **groups: tuple[_Layer, ...]) -> _Rules:
        """These rules with some groups of the order exchanged."""
        return _Rules(self.order._replace(**groups), self._made)


class Selection:
    """The rules that hold in the whole workspace."""

    def __init__(self, settings: SelectionSettings) -> None:
        self._settings = settings
        hard = [] if settings.include_git else [_named("built-in", GIT)]
        if not settings.upload_secrets:
            hard.append(_named("secrets", SECRETS))
        order = _Order(
            git=(),
            defaults=(_named("built-in", DEFAULTS),),
            config=(_named("workspace.ignore", settings.ignore),),
            syncdignore=(),
            hard=tuple(_lifting_nothing(layer) for layer in hard),
        )
        self._rules = _Rules(order, {})

    def root(self, exclude: Mapping[str, bytes] | None = None) -> Scope:
        """The scope of the workspace's own directory.

        `exclude` are git's exclude files by the name that rules show, the weakest first: the person's own, then the
        repository's `.git/info/exclude`. They are left aside where .gitignore files are.
        """
        if not self._settings.use_gitignore:
            return Scope(self._rules, "", (_SYNCDIGNORE,))
        git = tuple(_from_file(source, "", data) for source, data in (exclude or {}).items())
        return Scope(self._rules.but(git=git) if git else self._rules, "", (_GITIGNORE, _SYNCDIGNORE))


class Scope:
    """The rules in force within one directory. Immutable: threads may share it.

    `ignore_files` are the names of the files to read there and to hand to `with_files`.
    """

    __slots__ = ("_directories", "_files", "_rules", "_where", "ignore_files")

    def __init__(self, rules: _Rules, where: str, ignore_files: tuple[str, ...]) -> None:
        self._rules = rules
        self._where = where
        self.ignore_files = ignore_files
        # Both are found when they are first needed; found twice by two threads, they are equal.
        self._files: Sieve | None = None
        self._directories: Sieve | None = None

    @property
    def path(self) -> str:
        """The directory, relative to the workspace; "" is the workspace itself."""
        return unspelled(self._where[:-1])

    def enter(self, name: str) -> Scope:
        """The scope of an included subdirectory, before its own ignore files are known."""
        where = f"{self._where}{spelled(name)}/"
        if name == _GIT:
            # Asked for with include_git. Git's rules are about its work tree: `logs/` must not tear a repository apart.
            return Scope(self._rules.but(git=(), defaults=()), where, (_SYNCDIGNORE,))
        return Scope(self._rules, where, self.ignore_files)

    def with_files(self, files: Mapping[str, bytes]) -> Scope:
        """This scope with the directory's own ignore files, by name; names not in `ignore_files` are passed over."""
        rules = self._rules
        for name in self.ignore_files:
            data = files.get(name)
            if data is None:
                continue
            layer = _from_file(unspelled(self._where) + name, self._where, data)
            if name == _SYNCDIGNORE:
                rules = rules.but(syncdignore=(*rules.order.syncdignore, layer))
            else:
                rules = rules.but(git=(*rules.order.git, layer))
        return self if rules is self._rules else Scope(rules, self._where, self.ignore_files)

    def decide(self, name: str, is_dir: bool) -> Decision:
        """Whether a child of this directory belongs. A symlink is no directory, whatever it leads to."""
        text = name if name.isascii() else spelled(name)
        sieve = self._directories if is_dir else self._files
        if sieve is None:
            if is_dir:
                sieve = self._directories = self._rules.directories.sieve(self._where)
            else:
                sieve = self._files = self._rules.files.sieve(self._where)
        index = sieve.strongest(text)
        if index == NOBODY:
            return INCLUDED
        decision = self._rules.decisions[index]
        if decision is None:  # an exception to a hard rule: what the weaker ones say holds
            return Scope(self._rules.but(hard=()), self._where, self.ignore_files).decide(name, is_dir)
        return decision


def _from_file(source: str, base: str, data: bytes) -> _Layer:
    patterns = ignore_list(data)
    return _Layer(patterns, base, tuple(Decision(p.negated, Rule(source, p.line, p.text)) for p in patterns.patterns))


def _named(source: str, lines: tuple[str, ...]) -> _Layer:
    parsed = (parse_line(spelled(line), number) for number, line in enumerate(lines, 1))
    patterns = IgnoreList([pattern for pattern in parsed if pattern is not None])
    return _Layer(patterns, "", tuple(Decision(p.negated, Rule(source, None, p.text)) for p in patterns.patterns))


def _lifting_nothing(layer: _Layer) -> _Layer:
    """An exception to a hard rule says that the rule is not meant, not that the path belongs."""
    return layer._replace(decisions=tuple(None if d is None or d.included else d for d in layer.decisions))
