"""Finds all that differs in the sandbox from what was put there: for `diff`, `apply`, and before it is lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import inf
from types import MappingProxyType

from msgspec import Struct, field
from msgspec.structs import replace

from syncd.core.text import counted, few, shown_path
from syncd.model.entry import (
    ABSENT,
    Entry,
    Kind,
    SeenEntry,
    is_savable,
)
from syncd.model.git_names import is_in_repository
from syncd.model.manifest import Manifest
from syncd.sandbox.leftovers import Versions
from syncd.sandbox.look_request import LookAction, LookItem, LookItems, LookRequest, LookResult
from syncd.sandbox.remote_changes import RemoteChanges
from syncd.sandbox.sandbox_state import SandboxContent
from syncd.sandbox.saved_versions import Why
from syncd.scan.exclusions import too_long
from syncd.selection.builtin_rules import DIRECTORY_NAMES, GIT
from syncd.sync.sync_plan import is_outdated

IsExcluded = Callable[[str, bool], bool]
"""True for a path, and whether it is a directory, that the workspace's rules exclude."""


Find = Callable[[Mapping[str, SeenEntry]], "AgentWork"]
"""Looks at all that is there but what is as it is known to be."""


# So often it is looked at once more what was written while the last look's finds were fetched and saved.
_MOST_LOOKS = 5
# Of a socket, a FIFO or a device nothing can be kept.
_WITHOUT_CONTENT = (Kind.ABSENT, Kind.OTHER)
# Folders of what programs make; they are looked into unless the workspace's rules leave them out.
_OUTPUTS = ("build", "dist", "target", "out", "venv", "env", ".next", ".nuxt", "coverage", "obj", "tmp", "logs")


class AgentWork(Struct, frozen=True):
    """All that differs in the sandbox from what was put there.

    `base` are the versions that were put there as these paths, the certain one first; one without is new there. All
    that was put there is `content`. `changed` has
    what is there now, ABSENT for what was deleted. `excluded` has the same of paths that the rules exclude, some of
    which were put there before the rule. `unlisted` counts new paths beyond the most that a look lists. `unsearched`
    are directories that cannot be listed, or that the look did not come to; "." is the workspace itself. `not_kept` is
    the reason why this machine could not fetch or keep some contents. `repositories` are each `.git` that someone else
    made there, but the sandbox's own. `look` is the one that found all that.
    """

    base: Versions
    changed: Mapping[str, SeenEntry]
    excluded: Mapping[str, SeenEntry]
    pruned: tuple[str, ...]
    unlisted: int = 0
    not_kept: str = ""
    unsearched: tuple[str, ...] = ()
    content: SandboxContent = SandboxContent()
    repositories: tuple[str, ...] = ()
    look: LookResult = LookResult()

    def base_of(self, path: str) -> Entry | None:
        """Return what was put there as this path, None if nothing was."""
        versions = self.base[path] if path in self.base else self.content.versions_of(path)
        return next(iter(versions), None)

    def arrived(self, path: str) -> Entry | None:
        """Return what was put there as this path, None if nothing is known to have arrived."""
        return self.base_of(path) if self.content.has_arrived(path) else None

    def excluding(self, paths: Collection[str]) -> AgentWork:
        """Return the same with these paths excluded."""
        changed = {path: remote for path, remote in self.changed.items() if path not in paths}
        excluded = {path: remote for path, remote in self.changed.items() if path in paths}
        return replace(self, changed=changed, excluded={**self.excluded, **excluded})

    @property
    def seen_paths(self) -> set[str]:
        """The paths that are known to be changed there, but for those in a repository, which never come home."""
        known = (path for path, there in self.changed.items() if there.kind is not Kind.UNREAD)
        return {path for path in known if not is_in_repository(path)}

    @property
    def to_save(self) -> dict[str, SeenEntry]:
        """The versions that would be lost with the sandbox, also of what was put there before a rule left it out."""
        sent_before = {path: remote for path, remote in self.excluded.items() if path in self.base}
        found = {**self.changed, **sent_before}
        return {path: remote for path, remote in found.items() if remote.kind not in _WITHOUT_CONTENT}


class Unsaved(Struct, frozen=True):
    """The paths that a look found to differ and that could not be saved, each with the reason, and unlisted others."""

    paths: Mapping[str, str] = field(default_factory=dict)
    unlisted: int = 0
    look: LookResult = LookResult()

    def __bool__(self) -> bool:
        return bool(self.paths or self.unlisted)

    @property
    def count(self) -> str:
        """The number of them, for people."""
        return counted(len(self.paths) + self.unlisted, "path")

    def __str__(self) -> str:
        names = [f"'{shown_path(path)}' ({why})" for path, why in self.paths.items()]
        return ", ".join(few(names, len(names) + self.unlisted)).removeprefix("and ")


def pruned_names(is_excluded: IsExcluded) -> list[str]:
    """Return the names of folders that a search for what is new need not enter: excluded at the top and deeper."""
    names = (*DIRECTORY_NAMES, *_OUTPUTS)
    return [name for name in names if is_excluded(name, True) and is_excluded(f"syncd/{name}", True)]


def find_agent_work(
    remote_changes: RemoteChanges,
    content: SandboxContent,
    is_excluded: IsExcluded,
    left_s: float = inf,
    known: Mapping[str, SeenEntry] = MappingProxyType({}),
) -> AgentWork:
    """Look at everything that was put there, and at what is there beside it, in a sandbox that ends in `left_s`.

    What is still as an earlier look found it, and `known` to be, is neither fetched again nor in the outcome.

    Raises `StepFailed`, `Stop`.
    """
    ours = {path for manifest in content.versions[1:] for path in manifest}
    listed = {path: LookItem(tuple(content.versions_of(path)), LookAction.FETCH) for path in ours}
    for path, there in known.items():
        listed[path] = LookItem((there, *content.versions_of(path)), LookAction.FETCH)
    items = LookItems(listed, content.base or Manifest(), lambda _, entry: LookItem((entry,), LookAction.FETCH))
    pruned = pruned_names(is_excluded)
    result = remote_changes.look(LookRequest(items, find_new=True, pruned_names=pruned), left_s)
    as_known = known.keys() - result.differing.keys()
    work = agent_work(_without_known(result, known, content), content, is_excluded, pruned)
    seen = remote_changes.seen
    seen.note_all(work.seen_paths | (as_known & seen.changed) if as_known else work.seen_paths)
    return work


def _without_known(result: LookResult, known: Mapping[str, SeenEntry], content: SandboxContent) -> LookResult:
    """Return the result of a look that was asked for known paths, too: those that were not put there are new ones."""
    beside = {path for path in result.differing if path in known and not content.versions_of(path)}
    if not beside:
        return result
    new = {path: result.differing[path] for path in beside if result.differing[path].kind is not Kind.ABSENT}
    differing = {path: there for path, there in result.differing.items() if path not in beside}
    return replace(result, differing=differing, new={**result.new, **new})


def agent_work(
    result: LookResult, content: SandboxContent, is_excluded: IsExcluded, pruned_names: Collection[str]
) -> AgentWork:
    """Return what a look at everything found; `pruned_names` are those of folders that it did not enter."""
    base = {path: entries for path in (*result.differing, *result.new) if (entries := content.versions_of(path))}
    changed = dict(result.differing)
    excluded: dict[str, SeenEntry] = {}
    for path, remote in result.new.items():
        is_dir = remote.kind is Kind.DIRECTORY
        (excluded if is_excluded(path, is_dir) else changed)[path] = remote
    for path in content.leftovers:
        if changed.get(path, ABSENT) == ABSENT:
            changed.pop(path, None)  # deleted on both sides
    git = [path for path in result.pruned if is_in_repository(path.rpartition("/")[2])]
    for path in sorted(git, reverse=True):
        _drop_empty_parents(path, content, changed)
    others = [path for path in result.pruned if path not in git]
    by_rule = tuple(
        p for p in others if p != "." and (p.rpartition("/")[2] in pruned_names or _is_by_rule(p, is_excluded))
    )
    unsearched = tuple(path for path in others if path not in by_rule)
    nested = tuple(p for p in git if p != GIT[0] and not content.versions_of(p) and not _is_in_excluded(p, is_excluded))
    told = result.unlisted, result.not_kept
    work = AgentWork(base, changed, excluded, by_rule, *told, unsearched, content, nested, result)
    return work.excluding([path for path in changed if path in base and _was_or_is_excluded(work, path, is_excluded)])


def _is_by_rule(folder: str, is_excluded: IsExcluded) -> bool:
    """True if the rules exclude it; a path that is too long for this machine is no rule's, but its folder may be."""
    return is_excluded(folder.rpartition("/")[0] if too_long(folder) else folder, True)


def _is_in_excluded(path: str, is_excluded: IsExcluded) -> bool:
    folder = path.rpartition("/")[0]
    return folder != "" and is_excluded(folder, True)


def _was_or_is_excluded(work: AgentWork, path: str, is_excluded: IsExcluded) -> bool:
    """True if the rules exclude what was put there as this path, or what is there now."""
    kinds = {entry.kind is Kind.DIRECTORY for entry in work.base[path]}
    if work.changed[path].kind is not Kind.ABSENT:
        kinds.add(work.changed[path].kind is Kind.DIRECTORY)
    return any(is_excluded(path, is_dir) for is_dir in kinds)


def _drop_empty_parents(path: str, content: SandboxContent, changed: dict[str, SeenEntry]) -> None:
    """Remove new directories that hold nothing but a `.git`, which no one takes."""
    while path := path.rpartition("/")[0]:
        remote = changed.get(path)
        if remote is None or remote.kind is not Kind.DIRECTORY or content.versions_of(path):
            return
        if any(other.startswith(f"{path}/") for other in changed):
            return
        del changed[path]


def save_work(
    remote_changes: RemoteChanges,
    find: Find,
    why: Why,
    known: dict[str, SeenEntry],
) -> Unsaved:
    """Save all that `find` finds to differ, but what is `known`, have it be known, and return what could not be saved.

    What the rules exclude is not saved, unless it was put there before. Raises what `find` raises.
    """
    try:
        work = find(known)
        there = work.to_save
        failed = {path: remote for path, remote in there.items() if not is_savable(remote)}
        savable = {path: remote for path, remote in there.items() if path not in failed}
        for path in remote_changes.save(why, savable, work.arrived):
            failed[path] = there[path]
    finally:
        remote_changes.drop_copies()
    reasons = dict.fromkeys(work.unsearched, "its files cannot be listed there, or not in time")
    reasons |= {path: remote_changes.why_unsaved(remote) for path, remote in sorted(failed.items())}
    found = {**work.excluded, **work.changed}
    known |= {path: remote for path, remote in found.items() if is_savable(remote) and path not in reasons}
    return Unsaved(reasons, work.unlisted, work.look)


def save_before_all_goes(
    remote_changes: RemoteChanges,
    find: Find,
    why: Why,
    known: dict[str, SeenEntry],
) -> Unsaved:
    """Save as `save_work` does, again and again, until that took so short a time that hardly anything has come since.

    What has no end is "." of the outcome. Raises what `find` raises.
    """
    for _ in range(_MOST_LOOKS):
        unsaved = save_work(remote_changes, find, why, known)
        if not is_outdated(remote_changes.age_s(unsaved.look), 0):
            return unsaved
    return replace(unsaved, paths={".": "what is in it changes faster than it can be saved", **unsaved.paths})
