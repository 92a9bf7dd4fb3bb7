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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from syncd.policy.builtin_rules import DEFAULTS, GIT, SECRETS
from syncd.policy.gitignore import parse_line, spelled, unspelled
from syncd.policy.ignore_list import NOBODY, IgnoreList, Names, ignore_list

__all__ = ["Decision", "Rule", "Scope", "Selection", "SelectionSettings"]

_GIT = ".git"
_GITIGNORE = ".gitignore"
_SYNCDIGNORE = ".syncdignore"


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
    """The layers in force, each group from the strongest; see the head of this module."""

    hard: tuple[_Layer, ...]
    syncdignore: tuple[_Layer, ...]
    config: tuple[_Layer, ...]
    defaults: tuple[_Layer, ...]
    git: tuple[_Layer, ...]


_Sieve = tuple[tuple[Names, Names | None, tuple[Decision | None, ...]], ...]


class Selection:
    """The rules that hold in the whole workspace."""

    def __init__(self, settings: SelectionSettings) -> None:
        self._settings = settings
        hard = [] if settings.include_git else [_named("built-in", GIT)]
        if not settings.upload_secrets:
            hard.append(_named("secrets", SECRETS))
        self._order = _Order(
            hard=tuple(_lifting_nothing(layer) for layer in hard),
            syncdignore=(),
            config=(_named("workspace.ignore", settings.ignore),),
            defaults=(_named("built-in", DEFAULTS),),
            git=(),
        )

    def root(self, exclude: Mapping[str, bytes] | None = None) -> Scope:
        """The scope of the workspace's own directory.

        `exclude` are git's exclude files by the name that rules show, the weakest first: the person's own, then the
        repository's `.git/info/exclude`. They are left aside when .gitignore files are.
        """
        files = (_GITIGNORE, _SYNCDIGNORE) if self._settings.use_gitignore else (_SYNCDIGNORE,)
        order = self._order
        if self._settings.use_gitignore:
            for source, data in (exclude or {}).items():
                order = order._replace(git=(_from_file(source, "", data), *order.git))
        return Scope(order, "", files)


class Scope:
    """The rules in force within one directory. Immutable: threads may share it.

    `ignore_files` are the names of the files to read there and to hand to `with_files`.
    """

    __slots__ = ("_directories", "_files", "_order", "_where", "ignore_files")

    def __init__(self, order: _Order, where: str, ignore_files: tuple[str, ...]) -> None:
        self._order = order
        self._where = where
        self.ignore_files = ignore_files
        # Both are made when they are first needed; made twice by two threads, they are equal.
        self._files: _Sieve | None = None
        self._directories: _Sieve | None = None

    @property
    def path(self) -> str:
        """The directory, relative to the workspace; "" is the workspace itself."""
        return unspelled(self._where[:-1])

    def enter(self, name: str) -> Scope:
        """The scope of an included subdirectory, before its own ignore files are known."""
        where = f"{self._where}{spelled(name)}/"
        if name == _GIT:
            # Asked for with include_git. Git's rules are about its work tree: `logs/` must not tear a repository apart.
            return Scope(self._order._replace(defaults=(), git=()), where, (_SYNCDIGNORE,))
        return Scope(self._order, where, self.ignore_files)

    def with_files(self, files: Mapping[str, bytes]) -> Scope:
        """This scope with the directory's own ignore files, by name; names not in `ignore_files` are passed over."""
        order = self._order
        for name in self.ignore_files:
            data = files.get(name)
            if data is None:
                continue
            layer = _from_file(unspelled(self._where) + name, self._where, data)
            if name == _SYNCDIGNORE:
                order = order._replace(syncdignore=(layer, *order.syncdignore))
            else:
                order = order._replace(git=(layer, *order.git))
        return self if order is self._order else Scope(order, self._where, self.ignore_files)

    def decide(self, name: str, is_dir: bool) -> Decision:
        """Whether a child of this directory belongs. A symlink is no directory, whatever it leads to."""
        text = spelled(name)
        for floating, local, decisions in self._directory_sieve() if is_dir else self._file_sieve():
            index = floating.last(text)
            if local is not None:
                index = max(index, local.last(text))
            if index != NOBODY:
                decision = decisions[index]
                if decision is not None:
                    return decision
        return INCLUDED

    def _file_sieve(self) -> _Sieve:
        if self._files is None:
            sides = ((layer, layer.patterns.files) for group in self._order for layer in group)
            found = ((side.floating, side.local(self._where[len(layer.base) :]), layer) for layer, side in sides)
            self._files = tuple((f, loc, layer.decisions) for f, loc, layer in found if f or loc)
        return self._files

    def _directory_sieve(self) -> _Sieve:
        if self._directories is None:
            sides = ((layer, layer.patterns.directories) for group in self._order for layer in group)
            found = ((side.floating, side.local(self._where[len(layer.base) :]), layer) for layer, side in sides)
            self._directories = tuple((f, loc, layer.decisions) for f, loc, layer in found if f or loc)
        return self._directories


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
