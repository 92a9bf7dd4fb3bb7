"""Decides by base, local and remote what `apply` does with each path that differs in the sandbox.

| state | outcome |
| --- | --- |
| local as the base, remote changed or new | take |
| local as remote, or gone on both sides | same |
| both changed files: their mode, and their text if the base's bytes are known | merge; it may turn out a conflict |
| both changed, else | conflict |
| deleted there, local as the base | delete, if deletions are asked for; else deleted there |
| gone there since something that is not taken has its directory's place | stays |
| deleted on one side, changed on the other | stays |
| still being written, too large, or unreadable there | stays |
| a link that leads out, a device, below a `.git`, through a link here | never |
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from syncd.merge.writes import LocalEntry
from syncd.sandbox.look_request import RemoteEntry, RemoteKind
from syncd.scan.entry import Entry, Kind, arrived_digest
from syncd.scan.symlinks import leads_out, stays_inside

_EXECUTABLE = 0o100
_READABLE = 0o444
_LINK_MODE = 0o777  # as a scan has it
_NOT_DELETED = "its directory gave way there to something that is not taken"


class MergeOutcome(Enum):
    """The outcome for one path."""

    TAKE = "taken"
    SAME = "already as in the sandbox"
    MERGE = "merged"
    CONFLICT = "changed on both sides"
    DELETE = "deleted"
    DELETED_THERE = "deleted in the sandbox, and left here"
    STAYS = "left as it is on both sides"
    NEVER = "never taken"


class PlannedPath(Struct, frozen=True):
    """One path of the plan. `reason` is for people, where the outcome does not say it."""

    path: str
    outcome: MergeOutcome
    base: Entry | None
    local: LocalEntry | None
    remote: RemoteEntry
    reason: str = ""


class MergePlan(Struct, frozen=True):
    """The plan, in the order of the paths."""

    paths: tuple[PlannedPath, ...] = ()

    def of(self, *outcomes: MergeOutcome) -> list[PlannedPath]:
        """Return the paths with one of these outcomes."""
        return [planned for planned in self.paths if planned.outcome in outcomes]

    def with_outcome(self, paths: Collection[str], outcome: MergeOutcome, reason: str) -> MergePlan:
        """Return the plan with another outcome of these paths."""
        return MergePlan(
            tuple(
                replace(planned, outcome=outcome, reason=reason) if planned.path in paths else planned
                for planned in self.paths
            )
        )


class PlanInput(Struct, frozen=True):
    """The facts that the plan rests on: three sides by path, and links that are or will be in the workspace.

    `link_at` returns a link's target here, None for all that is no link. `children` are the paths here below a
    directory.
    """

    base: Mapping[str, Entry]
    local: Mapping[str, LocalEntry | None]
    remote: Mapping[str, RemoteEntry]
    deletions: bool
    link_at: Callable[[str], str | None]
    children: Callable[[str], Collection[str]]


def merge_plan(given: PlanInput) -> MergePlan:
    """Return the plan."""
    found: dict[str, PlannedPath] = {}
    for path in sorted(given.remote):
        base, local, remote = given.base.get(path), given.local.get(path), given.remote[path]
        if local is not None and local.kind is None and _makes_room(given, path):
            local = None
        outcome, reason = _outcome(given, path, base, local, remote)
        found[path] = PlannedPath(path, outcome, base, local, remote, reason)
    for path, planned in found.items():
        if planned.outcome is MergeOutcome.TAKE and _replaces_directory(planned):
            left = [child for child in given.children(path) if not _goes(found.get(child))]
            if left:
                reason = "its directory here holds more than was deleted there"
                found[path] = PlannedPath(
                    path, MergeOutcome.CONFLICT, planned.base, planned.local, planned.remote, reason
                )
    for path, planned in found.items():
        above = _above(path, found)
        if planned.outcome in (MergeOutcome.TAKE, MergeOutcome.MERGE) and above is not None:
            reason = f"its directory is not taken: {above.reason or above.outcome.value}"
            stays = MergeOutcome.NEVER if above.outcome is MergeOutcome.NEVER else MergeOutcome.CONFLICT
            found[path] = PlannedPath(path, stays, planned.base, planned.local, planned.remote, reason)
        elif planned.outcome is MergeOutcome.DELETE and _is_below_what_stays(path, found):
            found[path] = replace(planned, outcome=MergeOutcome.STAYS, reason=_NOT_DELETED)
    return MergePlan(tuple(found.values()))


def _outcome(
    given: PlanInput, path: str, base: Entry | None, local: LocalEntry | None, remote: RemoteEntry
) -> tuple[MergeOutcome, str]:
    never = never_taken(given, path, local, remote)
    if never:
        return MergeOutcome.NEVER, never
    if remote.unstable:
        return MergeOutcome.STAYS, "it is still being written in the sandbox"
    if remote.kind is RemoteKind.UNREADABLE:
        return MergeOutcome.STAYS, "it cannot be read in the sandbox"
    if is_as_remote(local, remote):
        return MergeOutcome.SAME, ""
    if remote.kind is RemoteKind.ABSENT:
        if not is_as_base(local, base):
            return MergeOutcome.STAYS, "deleted in the sandbox, changed here"
        return (MergeOutcome.DELETE, "") if given.deletions else (MergeOutcome.DELETED_THERE, "")
    if remote.kind is RemoteKind.FILE and not remote.copy:
        return MergeOutcome.STAYS, "its content could not be fetched"
    if is_as_base(local, base):
        if local is not None and local.is_directory and remote.kind is not RemoteKind.DIRECTORY and not given.deletions:
            return MergeOutcome.STAYS, "a directory here, no directory there; --deletions takes it"
        return MergeOutcome.TAKE, ""
    if local is None:
        return MergeOutcome.STAYS, "deleted here, changed in the sandbox"
    if base is not None and {base.kind.value, remote.kind.value, local.kind} == {Kind.FILE.value}:
        return MergeOutcome.MERGE, ""
    if base is None and local.kind is Kind.FILE and local.digest == remote.digest != b"":
        return MergeOutcome.MERGE, ""  # only the modes differ
    return MergeOutcome.CONFLICT, _both(base, local, remote)


def _makes_room(given: PlanInput, path: str) -> bool:
    """True if a file or link here, which a directory there replaces, is all that is in the path's way."""
    while path := path.rpartition("/")[0]:
        local, remote = given.local.get(path), given.remote.get(path)
        if local is not None and local.kind is not None:
            return remote is not None and remote.kind is RemoteKind.DIRECTORY and not local.is_directory
    return False


def never_taken(given: PlanInput, path: str, local: LocalEntry | None, remote: RemoteEntry) -> str:
    """Return the reason for which a path is never taken, empty if there is none."""
    if any(name.lower() == ".git" for name in path.split("/")):
        return "it is inside of a .git"
    if local is not None and local.kind is None:
        return "its place here is behind a link, or holds a device"
    if remote.kind is RemoteKind.OTHER:
        return "it is a socket, a FIFO or a device"
    if remote.kind is RemoteKind.SYMLINK:

        def target_of(at: str) -> str | None:
            there = given.remote.get(at)
            if there is not None:
                return there.target if there.kind is RemoteKind.SYMLINK else None
            return given.link_at(at)

        if not stays_inside(path, remote.target) or leads_out(path, remote.target, target_of):
            return "it is a link that leads out of the workspace"
    return ""


def _both(base: Entry | None, local: LocalEntry, remote: RemoteEntry) -> str:
    if base is None:
        return "new on both sides"
    if local.kind is None or local.kind.value != remote.kind.value:
        return "of different kinds"
    return "changed on both sides"


def _replaces_directory(planned: PlannedPath) -> bool:
    local = planned.local
    return local is not None and local.is_directory and planned.remote.kind is not RemoteKind.DIRECTORY


def _goes(planned: PlannedPath | None) -> bool:
    return planned is not None and planned.outcome in (MergeOutcome.DELETE, MergeOutcome.SAME)


def _above(path: str, found: Mapping[str, PlannedPath]) -> PlannedPath | None:
    """Return the nearest path above that is no directory, or will not become one."""
    while path := path.rpartition("/")[0]:
        planned = found.get(path)
        if planned is not None and planned.remote.kind is RemoteKind.DIRECTORY:
            taken = planned.outcome in (MergeOutcome.TAKE, MergeOutcome.SAME)
            return None if taken else planned
    return None


def _is_below_what_stays(path: str, found: Mapping[str, PlannedPath]) -> bool:
    """True if the path is gone there only since something that is not taken has its directory's place."""
    while path := path.rpartition("/")[0]:
        planned = found.get(path)
        if planned is not None and planned.remote.kind not in (RemoteKind.DIRECTORY, RemoteKind.ABSENT):
            return planned.outcome not in (MergeOutcome.TAKE, MergeOutcome.SAME)
    return False


def is_as_base(local: LocalEntry | None, base: Entry | None) -> bool:
    """True if the workspace holds what was sent; of the mode counts only the owner's executable bit."""
    if local is None or base is None:
        return local is None and base is None
    if local.kind is not base.kind:
        return False
    if base.kind is Kind.SYMLINK:
        return local.target == base.target
    if base.kind is Kind.DIRECTORY:
        return True
    digest = arrived_digest(base)
    return digest != b"" and local.digest == digest and not (local.mode ^ base.mode) & _EXECUTABLE


def is_as_remote(local: LocalEntry | None, remote: RemoteEntry) -> bool:
    """True if the workspace holds what the sandbox does."""
    if local is None or remote.kind is RemoteKind.ABSENT:
        return local is None and remote.kind is RemoteKind.ABSENT
    if local.kind is None or local.kind.value != remote.kind.value:
        return False
    if local.kind is Kind.SYMLINK:
        return local.target == remote.target
    if local.kind is Kind.DIRECTORY:
        return True
    return remote.digest != b"" and local.digest == remote.digest and not (local.mode ^ remote.mode) & _EXECUTABLE


def taken_mode(base: Entry | None, local: LocalEntry | None, remote: RemoteEntry) -> int:
    """Return the permission bits that a path gets here.

    A new path gets the sandbox's. Otherwise the bits here stay, but for a change of the owner's executable bit there:
    then whoever may read may execute, or nobody may.
    """
    if local is None or local.kind is None or local.kind.value != remote.kind.value:
        return remote.mode & 0o777
    before = local.mode if base is None else base.mode
    if local.is_directory or not (before ^ remote.mode) & _EXECUTABLE:
        return local.mode & 0o777
    return _executable_as(local.mode, remote.mode)


def merged_mode(base: Entry | None, local: LocalEntry | None, remote: RemoteEntry) -> int:
    """Return the permission bits of a merged file: the side that changed the executable bit decides about it."""
    if local is None:
        return remote.mode & 0o777
    if base is None or (local.mode ^ base.mode) & _EXECUTABLE:
        return local.mode & 0o777
    return taken_mode(base, local, remote)


def sent_mode(local: LocalEntry, remote: RemoteEntry) -> int:
    """Return the mode that counts as sent once a file was merged: the bits here, but as executable as there."""
    if not (local.mode ^ remote.mode) & _EXECUTABLE:
        return local.mode & 0o777
    return _executable_as(local.mode, remote.mode)


def _executable_as(mode: int, remote_mode: int) -> int:
    if remote_mode & _EXECUTABLE:
        return (mode | ((mode & _READABLE) >> 2)) & 0o777
    return mode & 0o666


def next_base(planned: PlannedPath, mode: int) -> Entry | None:
    """Return what counts as sent once the path was taken: the sandbox's version, with the mode that it has here."""
    remote = planned.remote
    if remote.kind is RemoteKind.ABSENT:
        return None
    return Entry(
        Kind(remote.kind.value),
        _LINK_MODE if remote.kind is RemoteKind.SYMLINK else mode,
        max(0, remote.mtime_s),
        remote.size_bytes if remote.kind is RemoteKind.FILE else 0,
        remote.target,
        digest=remote.digest if remote.kind is RemoteKind.FILE else b"",
    )
