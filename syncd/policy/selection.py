"""Decides what belongs in the snapshot: which names of a directory are included, and by which rule.

Whoever walks the workspace carries a `Scope` along, one per directory, and asks it about each child. A directory that
is left out is not entered, so nothing in it can be brought back: git's own rule, and what makes pruning possible.

Precedence, from the strongest:

    1. hard rules: `.git` and secrets by name         no file can lift them, only [workspace] of the configuration
    2. .syncdignore, the deepest first                what this person wants for this workspace
    3. workspace.ignore of the configuration
    4. built-in defaults                              over .gitignore, or a whitelist (`*`, `!*/`, `!*.py`) in it
    5. .gitignore, the deepest first                  would bring node_modules back
    6. git's own exclude files
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from syncd.policy.allowance import covering
from syncd.policy.builtin_rules import DEFAULTS, GIT, SECRETS
from syncd.policy.gitignore import parse_line, spelled, unspelled
from syncd.policy.ignore_list import IgnoreList, ignore_list
from syncd.policy.rules import Decision, Layer, Rule, Rules, Strength
from syncd.policy.sieve import NOBODY, Sieve

__all__ = ["Decision", "Rule", "Scope", "Selection", "SelectionSettings"]

_GIT = ".git"
_GITIGNORE = ".gitignore"
_SYNCDIGNORE = ".syncdignore"

INCLUDED = Decision(included=True, rule=None)


@dataclass(frozen=True)
class SelectionSettings:
    """The keys of [workspace] that say what belongs; their patterns are gitignore's, relative to the workspace."""

    ignore: tuple[str, ...] = ()
    use_gitignore: bool = True
    include_git: bool = False
    upload_secrets: bool = False
    allow_secrets: tuple[str, ...] = ()


class Selection:
    """The rules that hold in the whole workspace."""

    def __init__(self, settings: SelectionSettings) -> None:
        self._settings = settings
        layers = [
            _named(Strength.DEFAULTS, "built-in", DEFAULTS),
            _named(Strength.CONFIG, "workspace.ignore", settings.ignore),
        ]
        if not settings.upload_secrets:
            allowed = tuple(f"!{pattern}" for pattern in covering(settings.allow_secrets))
            layers.append(_lifting_nothing(_named(Strength.HARD, "secrets", SECRETS + allowed)))
        if not settings.include_git:
            layers.append(_named(Strength.HARD, "built-in", GIT))
        self._rules = Rules.of(layers)

    def root(self, exclude: Mapping[str, bytes] | None = None) -> Scope:
        """The scope of the workspace's own directory.

        `exclude` are git's exclude files by the name that rules show, the weakest first: the person's own, then the
        repository's `.git/info/exclude`. They are left aside where .gitignore files are.
        """
        if not self._settings.use_gitignore:
            return Scope(self._rules, "", (_SYNCDIGNORE,))
        layers = [_from_file(Strength.GIT, source, "", data) for source, data in (exclude or {}).items()]
        return Scope(self._rules.plus(layers) if layers else self._rules, "", (_GITIGNORE, _SYNCDIGNORE))


class Scope:
    """The rules in force within one directory. Immutable: threads may share it.

    `ignore_files` are the names of the files to read there and to hand to `with_files`.
    """

    __slots__ = ("_directories", "_files", "_rules", "_where", "ignore_files")

    def __init__(self, rules: Rules, where: str, ignore_files: tuple[str, ...]) -> None:
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
            return Scope(self._rules.without(Strength.GIT, Strength.DEFAULTS), where, (_SYNCDIGNORE,))
        return Scope(self._rules, where, self.ignore_files)

    def with_files(self, files: Mapping[str, bytes]) -> Scope:
        """This scope with the directory's own ignore files, by name; names not in `ignore_files` are passed over."""
        layers = []
        for name in self.ignore_files:
            data = files.get(name)
            if data is not None:
                strength = Strength.SYNCDIGNORE if name == _SYNCDIGNORE else Strength.GIT
                layers.append(_from_file(strength, unspelled(self._where) + name, self._where, data))
        if not layers:
            return self
        rules = self._rules.plus(layers) if self._where else Rules.of([*self._rules.layers, *layers])
        return Scope(rules, self._where, self.ignore_files)

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
        decision = self._rules.decision(index)
        if decision is None:  # an exception to a hard rule: what the others say holds
            return Scope(self._rules.soft(), self._where, self.ignore_files).decide(name, is_dir)
        return decision


def _from_file(strength: Strength, source: str, base: str, data: bytes) -> Layer:
    patterns = ignore_list(data)
    decisions = (Decision(pattern.negated, Rule(source, pattern.line, pattern.text)) for pattern in patterns.patterns)
    return Layer(strength, patterns, base, tuple(decisions))


def _named(strength: Strength, source: str, lines: tuple[str, ...]) -> Layer:
    parsed = (parse_line(spelled(line), number) for number, line in enumerate(lines, 1))
    patterns = IgnoreList([pattern for pattern in parsed if pattern is not None])
    decisions = (Decision(pattern.negated, Rule(source, None, pattern.text)) for pattern in patterns.patterns)
    return Layer(strength, patterns, "", tuple(decisions))


def _lifting_nothing(layer: Layer) -> Layer:
    """An exception to a hard rule says that the rule is not meant, not that the path belongs."""
    return layer._replace(decisions=tuple(None if d is None or d.included else d for d in layer.decisions))
