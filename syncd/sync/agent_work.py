"""Finds all that differs in the sandbox from what was put there: to be shown, brought home, followed, or saved."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import inf
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from syncd.model.entry import Entry, Kind, SeenEntry, is_savable, same
from syncd.model.git_names import is_in_repository
from syncd.model.reconcile import Versions
from syncd.sandbox.look_request import LookAction, LookItem, LookItems, LookRequest, LookResult
from syncd.sandbox.looks import Looks
from syncd.sandbox.sandbox_content import UNKNOWN, SandboxContent
from syncd.scan.exclusions import too_long
from syncd.selection.selection import DIRECTORY_NAMES, GIT

IsExcluded = Callable[[str, bool], bool]
"""True for a path, and whether it is a directory, that the workspace's rules exclude."""

# Of a socket, a FIFO or a device nothing can be kept.
_WITHOUT_CONTENT = (Kind.ABSENT, Kind.OTHER)
# Folders of what programs make; they are looked into unless the workspace's rules exclude them.
_OUTPUTS = ("build", "dist", "target", "out", "venv", "env", ".next", ".nuxt", "coverage", "obj", "tmp", "logs")


class FoundWork(Struct, frozen=True):
    """What looks found in a sandbox in the place of what was put there; the last one began at `at_s`, if that counts.

    `there` has ABSENT for nothing, and `at_s` are seconds since 1970. `pruned`, `unlisted` and `not_kept` are as in a
    look's result.
    """

    at_s: float
    there: Mapping[str, SeenEntry]
    pruned: tuple[str, ...] = ()
    unlisted: int = 0
    not_kept: str = ""

    def savable(self, content: SandboxContent) -> dict[str, SeenEntry]:
        """Return what has its content here, and is none of the versions that were put there."""
        return {
            path: entry
            for path, entry in self.there.items()
            if is_savable(entry) and not any(same(entry, version) for version in content.versions_of(path))
        }


class AgentWork(Struct, frozen=True):
    """All that differs in the sandbox from what was put there, which is `content`.

    `changed` has what is there now, ABSENT for what was deleted. `excluded` has the same of paths that the rules
    exclude, some of which were put there before the rule. `unlisted` counts new paths beyond the most that a look
    lists. `unsearched` are directories that cannot be listed, or that the look did not come to; "." is the workspace
    itself. `not_kept` is the reason why this machine could not fetch or keep some contents. `repositories` are each
    `.git` that someone else made there, but the sandbox's own. `look` is the one that found all that. Of paths in
    `base`, its versions count as those that were put there.
    """

    changed: Mapping[str, SeenEntry]
    excluded: Mapping[str, SeenEntry]
    pruned: tuple[str, ...] = ()
    unlisted: int = 0
    not_kept: str = ""
    unsearched: tuple[str, ...] = ()
    content: SandboxContent = UNKNOWN
    repositories: tuple[str, ...] = ()
    look: LookResult = LookResult()
    base: Versions = {}

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
        sent_before = {path: there for path, there in self.excluded.items() if self.content.versions_of(path)}
        found = {**self.changed, **sent_before}
        return {path: remote for path, remote in found.items() if remote.kind not in _WITHOUT_CONTENT}


def pruned_names(is_excluded: IsExcluded) -> list[str]:
    """Return the names of folders that a search for what is new need not enter: excluded at the top and deeper."""
    names = (*DIRECTORY_NAMES, *_OUTPUTS)
    return [name for name in names if is_excluded(name, True) and is_excluded(f"syncd/{name}", True)]


def whole_look(content: SandboxContent, known: Mapping[str, SeenEntry], is_excluded: IsExcluded) -> LookRequest:
    """Return a look for all that is otherwise than it is `known` to be, or was put there, and at what is new.

    A known file whose content is lacking is looked for, unless it is not wanted: what the rules exclude is not fetched
    once more.
    """
    listed: dict[str, LookItem] = {}
    for path in {path for manifest in content.versions[1:] for path in manifest}:
        listed[path] = LookItem(tuple(content.versions_of(path)), LookAction.FETCH)
    for path, there in known.items():
        action = LookAction.COMPARE if _is_left_there(path, there, content, is_excluded) else LookAction.FETCH
        if there.kind is Kind.FILE and not there.copy and action is LookAction.FETCH:
            continue
        # An archive that was sent may have arrived meanwhile.
        sent = content.versions_of(path) if path in listed else ()
        listed[path] = LookItem((*(() if there.kind is Kind.ABSENT else (there,)), *sent), action)
    items = LookItems(listed, content.base, lambda _, entry: LookItem((entry,), LookAction.FETCH))
    return LookRequest(items, find_new=True, pruned_names=pruned_names(is_excluded))


def differing(there: Mapping[str, SeenEntry], content: SandboxContent, is_excluded: IsExcluded) -> dict[str, SeenEntry]:
    """Return what of this is otherwise than what was put there, without the contents of what stays there."""
    found, leftovers = {}, content.leftovers
    for path, entry in there.items():
        versions = content.versions_of(path)
        is_nobodys = entry.kind is Kind.ABSENT and (not versions or path in leftovers)  # or deleted on both sides
        if is_nobodys or any(same(entry, version) for version in versions):
            continue
        found[path] = replace(entry, copy="") if _is_left_there(path, entry, content, is_excluded) else entry
    return found


def _is_left_there(path: str, there: SeenEntry, content: SandboxContent, is_excluded: IsExcluded) -> bool:
    """True if it is not fetched, nor kept: the rules exclude it, and it was never sent."""
    return is_excluded(path, there.is_directory) and not content.versions_of(path)


def lacking(there: Mapping[str, SeenEntry], content: SandboxContent, is_excluded: IsExcluded) -> dict[str, SeenEntry]:
    """Return the files that are to be kept and whose content could not be fetched."""
    files = ((path, entry) for path, entry in there.items() if entry.kind is Kind.FILE and not entry.copy)
    return {path: entry for path, entry in files if not _is_left_there(path, entry, content, is_excluded)}


def find_agent_work(
    looks: Looks,
    content: SandboxContent,
    is_excluded: IsExcluded,
    left_s: float = inf,
    known: Mapping[str, SeenEntry] = MappingProxyType({}),
) -> AgentWork:
    """Look at everything that was put there, and at what is there beside it, in a sandbox that ends in `left_s`.

    What is still as an earlier look found it, and `known` to be, is not fetched again.

    Raises `StepFailed`, `Stop`.
    """
    result = looks.look(whole_look(content, known, is_excluded), left_s)
    there = {**known, **result.differing, **result.new}
    not_kept = result.not_kept
    if lacking(there, content, is_excluded):  # it may have asked for fewer than there are
        not_kept = looks.not_kept
    found = FoundWork(0.0, there, tuple(result.pruned), result.unlisted, not_kept)
    work = replace(agent_work(found, content, is_excluded), look=result)
    looks.seen.note_all(work.seen_paths)
    return work


def agent_work(found: FoundWork, content: SandboxContent, is_excluded: IsExcluded) -> AgentWork:
    """Return what a look at everything found, parted by the rules."""
    changed: dict[str, SeenEntry] = {}
    excluded: dict[str, SeenEntry] = {}
    for path, there in differing(found.there, content, is_excluded).items():
        kinds = {entry.is_directory for entry in content.versions_of(path)}
        if there.kind is not Kind.ABSENT:
            kinds.add(there.is_directory)
        (excluded if any(is_excluded(path, is_dir) for is_dir in kinds) else changed)[path] = there
    git = [path for path in found.pruned if is_in_repository(path.rpartition("/")[2])]
    for path in sorted(git, reverse=True):
        _drop_empty_parents(path, content, changed)
    others, names = [path for path in found.pruned if path not in git], pruned_names(is_excluded)
    by_rule = tuple(p for p in others if p != "." and (p.rpartition("/")[2] in names or _is_by_rule(p, is_excluded)))
    unsearched = tuple(path for path in others if path not in by_rule)
    nested = tuple(p for p in git if p != GIT[0] and not content.versions_of(p) and not _is_in_excluded(p, is_excluded))
    return AgentWork(changed, excluded, by_rule, found.unlisted, found.not_kept, unsearched, content, nested)


def _is_by_rule(folder: str, is_excluded: IsExcluded) -> bool:
    """True if the rules exclude it; a path that is too long for this machine is no rule's, but its folder may be."""
    return is_excluded(folder.rpartition("/")[0] if too_long(folder) else folder, True)


def _is_in_excluded(path: str, is_excluded: IsExcluded) -> bool:
    folder = path.rpartition("/")[0]
    return folder != "" and is_excluded(folder, True)


def _drop_empty_parents(path: str, content: SandboxContent, changed: dict[str, SeenEntry]) -> None:
    """Remove new directories that hold nothing but a `.git`, which no one takes."""
    while path := path.rpartition("/")[0]:
        remote = changed.get(path)
        if remote is None or remote.kind is not Kind.DIRECTORY or content.versions_of(path):
            return
        if any(other.startswith(f"{path}/") for other in changed):
            return
        del changed[path]
