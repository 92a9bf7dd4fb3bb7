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

In a repository whose top is above the workspace, the `.gitignore` files on the way down to it count as well, and the
patterns of git's exclude files are relative to that top. So scopes count directories from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from syncd.selection.builtin_rules import DEFAULTS, GIT, SECRETS
from syncd.selection.gitignore import as_latin1, from_latin1, parse_line
from syncd.selection.pattern_index import NO_MATCH, PatternIndex
from syncd.selection.pattern_list import PatternList, pattern_list
from syncd.selection.rules import Decision, Layer, Rule, Rules, Strength
from syncd.selection.secret_allowlist import covering

__all__ = ["Decision", "OuterFile", "OuterRules", "Rule", "Scope", "Selection", "SelectionSettings"]

_GIT = ".git"
GITIGNORE = ".gitignore"
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


@dataclass(frozen=True)
class OuterFile:
    """An ignore file outside of the workspace's own directories, under the name that its rules show."""

    source: str
    folder: str  # that its patterns are relative to, from the repository's top; "" is the top
    data: bytes


@dataclass(frozen=True)
class OuterRules:
    """Git's rules from outside of the workspace's own directories, the weakest file first.

    `workspace` is where the workspace is, from the repository's top; "" where it is the top, or in no repository.
    """

    workspace: str = ""
    files: tuple[OuterFile, ...] = ()


NO_OUTER_RULES = OuterRules()


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

    @property
    def heeds_git(self) -> bool:
        """Whether git's rules count at all."""
        return self._settings.use_gitignore

    def root(self, outer: OuterRules = NO_OUTER_RULES) -> Scope:
        """The scope of the workspace's own directory. Outer rules are left aside where .gitignore files are."""
        if not self.heeds_git:
            return Scope(self._rules, "", (_SYNCDIGNORE,))
        names = (GITIGNORE, _SYNCDIGNORE)
        layers = [_from_file(Strength.GIT, each.source, _base(each.folder), each.data) for each in outer.files]
        if not outer.workspace:
            return Scope(self._rules.plus(layers) if layers else self._rules, "", names)
        layers = _including(outer.workspace, layers)
        top = _base(outer.workspace)
        own = [layer._replace(base=top) for layer in self._rules.layers]
        return Scope(Rules.of([*own, *layers]), top, names, top)


class Scope:
    """The rules in force within one directory. Immutable: threads may share it.

    `ignore_files` are the names of the files to read there and to hand to `with_files`.
    """

    __slots__ = ("_directories", "_files", "_rules", "_top", "_where", "ignore_files")

    def __init__(self, rules: Rules, where: str, ignore_files: tuple[str, ...], top: str = "") -> None:
        self._rules = rules
        self._where = where  # from the repository's top, as `top`, which is the workspace
        self._top = top
        self.ignore_files = ignore_files
        # Both are found when they are first needed; found twice by two threads, they are equal.
        self._files: PatternIndex | None = None
        self._directories: PatternIndex | None = None

    @property
    def path(self) -> str:
        """The directory, relative to the workspace; "" is the workspace itself."""
        return from_latin1(self._where[len(self._top) : -1])

    def enter(self, name: str) -> Scope:
        """The scope of an included subdirectory, before its own ignore files are known."""
        where = f"{self._where}{as_latin1(name)}/"
        if name == _GIT:
            # Asked for with include_git. Git's rules are about its work tree: `logs/` must not tear a repository apart.
            return Scope(self._rules.without(Strength.GIT, Strength.DEFAULTS), where, (_SYNCDIGNORE,), self._top)
        return Scope(self._rules, where, self.ignore_files, self._top)

    def with_files(self, files: Mapping[str, bytes]) -> Scope:
        """This scope with the directory's own ignore files, by name; names not in `ignore_files` are passed over."""
        layers = []
        for name in self.ignore_files:
            data = files.get(name)
            if data is not None:
                strength = Strength.SYNCDIGNORE if name == _SYNCDIGNORE else Strength.GIT
                source = from_latin1(self._where[len(self._top) :]) + name
                layers.append(_from_file(strength, source, self._where, data))
        if not layers:
            return self
        rules = self._rules.plus(layers) if self._where != self._top else Rules.of([*self._rules.layers, *layers])
        return Scope(rules, self._where, self.ignore_files, self._top)

    def decide(self, name: str, is_dir: bool) -> Decision:
        """Whether a child of this directory belongs. A symlink is no directory, whatever it leads to."""
        text = name if name.isascii() else as_latin1(name)
        pattern_index = self._directories if is_dir else self._files
        if pattern_index is None:
            if is_dir:
                pattern_index = self._directories = self._rules.directories.pattern_index(self._where)
            else:
                pattern_index = self._files = self._rules.files.pattern_index(self._where)
        index = pattern_index.strongest(text)
        if index == NO_MATCH:
            return INCLUDED
        decision = self._rules.decision(index)
        if decision is None:  # an exception to a hard rule: what the others say holds
            return Scope(self._rules.soft(), self._where, self.ignore_files, self._top).decide(name, is_dir)
        return decision


def _base(folder: str) -> str:
    return f"{as_latin1(folder)}/" if folder else ""


def _including(workspace: str, layers: Sequence[Layer]) -> list[Layer]:
    """The layers but for each pattern that leaves out the workspace itself, or a folder that it is in.

    A person has named the workspace, so that is not what they mean; the other patterns they do.
    """
    layers = list(layers)
    where = ""
    for name in workspace.split("/"):
        while True:
            above = Rules.of(layer for layer in layers if where.startswith(layer.base))
            decision = Scope(above, where, ()).decide(name, is_dir=True)
            if decision.included:
                break
            layers = [_without(layer, decision.rule) for layer in layers]
        where += f"{as_latin1(name)}/"
    return layers


def _without(layer: Layer, rule: Rule | None) -> Layer:
    """The layer but for the rule, on whatever lines it stands."""
    named = rule and (rule.source, rule.pattern)
    rules = [decision and decision.rule for decision in layer.decisions]
    kept = [at for at, each in enumerate(rules) if each is None or (each.source, each.pattern) != named]
    if len(kept) == len(layer.decisions):
        return layer
    patterns = PatternList([layer.patterns.patterns[at] for at in kept])
    return layer._replace(patterns=patterns, decisions=tuple(layer.decisions[at] for at in kept))


def _from_file(strength: Strength, source: str, base: str, data: bytes) -> Layer:
    patterns = pattern_list(data)
    decisions = (Decision(pattern.negated, Rule(source, pattern.line, pattern.text)) for pattern in patterns.patterns)
    return Layer(strength, patterns, base, tuple(decisions))


def _named(strength: Strength, source: str, lines: tuple[str, ...]) -> Layer:
    parsed = (parse_line(as_latin1(line), number) for number, line in enumerate(lines, 1))
    patterns = PatternList([pattern for pattern in parsed if pattern is not None])
    decisions = (Decision(pattern.negated, Rule(source, None, pattern.text)) for pattern in patterns.patterns)
    return Layer(strength, patterns, "", tuple(decisions))


def _lifting_nothing(layer: Layer) -> Layer:
    """An exception to a hard rule says that the rule is not meant, not that the path belongs."""
    return layer._replace(decisions=tuple(None if d is None or d.included else d for d in layer.decisions))
