"""Decides by three sides what a sync does with each path of the sandbox that someone there changed.

The base is what syncd put there, *local* what the workspace holds, *remote* what a look found. A look reports a path
only if it differs both from the base and from what is about to be put there: what is not reported may be written.

| local | remote | save | hold | force | overwrite |
| --- | --- | --- | --- | --- | --- |
| as the base | missing | write | write | write | write |
| as the base | changed | keep | keep | save, write | write |
| changed, new, or no base is known | missing | write | write | write | write |
| changed, new, or no base is known | changed | save, write | hold | save, write | write |
| deleted | missing | write | write | write | write |
| deleted | changed | keep | keep | save, remove | remove |

*Keep*: only someone there changed it, and it stays; *hold*: both sides changed it, and it stays until a person decides.
What cannot be saved (it is still being written, cannot be read, is too large, or has no room here) is held instead of
overwritten. What
is below a path that stays, stays: its directory is not ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum

from msgspec import Struct, field

from syncd.core.choices import AgentChanges
from syncd.sandbox.look_request import RemoteEntry, RemoteKind
from syncd.scan.entry import Entry, Kind, arrived_digest
from syncd.scan.manifest import is_within


class Forced(Enum):
    """`push --force`: all is made as it is here, and what that overwrites is saved."""

    FORCE = "force"


Policy = AgentChanges | Forced


class LocalState(Enum):
    """The state of a path here, compared with the base."""

    AS_BASE = "as the base"
    CHANGED = "changed, new, or not known to be as the base"
    DELETED = "deleted"


class PathAction(Enum):
    """The action for one path in the sandbox."""

    WRITE = "write or remove it there"
    KEEP = "leave it: only someone there changed it"
    HOLD = "leave it: both sides changed it"
    SAVE = "save the version there, then write or remove it"


class SyncDecision(Struct, frozen=True):
    """The paths that a sync leaves alone, and those that it saves first, each with what is there."""

    kept: Mapping[str, RemoteEntry] = field(default_factory=dict)
    held: Mapping[str, RemoteEntry] = field(default_factory=dict)
    saved: Mapping[str, RemoteEntry] = field(default_factory=dict)


def action_for(local: LocalState, remote: RemoteEntry, policy: Policy) -> PathAction:
    """Return the action for a path that differs there."""
    if remote.kind is RemoteKind.ABSENT or policy is AgentChanges.OVERWRITE:
        return PathAction.WRITE
    if policy is not Forced.FORCE and local is not LocalState.CHANGED:
        return PathAction.KEEP
    if policy is AgentChanges.HOLD or not can_be_saved(remote):
        return PathAction.HOLD if local is LocalState.CHANGED else PathAction.KEEP
    return PathAction.SAVE


def can_be_saved(remote: RemoteEntry) -> bool:
    """True if the whole version there is known here."""
    if remote.kind is RemoteKind.FILE:
        return bool(remote.copy)
    return remote.kind is RemoteKind.SYMLINK


def decide(
    differing: Mapping[str, RemoteEntry],
    as_base: Collection[str],
    deleted: Collection[str],
    policy: Policy,
    unsaved: Collection[str] = (),
) -> SyncDecision:
    """Decide for all paths that a look found to differ. `as_base` and `deleted` tell their state here.

    `unsaved` are paths whose version there was to be saved and could not be.
    """
    kept: dict[str, RemoteEntry] = {}
    held: dict[str, RemoteEntry] = {}
    saved: dict[str, RemoteEntry] = {}
    for path in sorted(differing):
        remote = differing[path]
        local = LocalState.CHANGED
        if path in deleted:
            local = LocalState.DELETED
        elif path in as_base:
            local = LocalState.AS_BASE
        action = action_for(local, remote, policy)
        if action is PathAction.SAVE and path in unsaved:
            action = PathAction.HOLD if local is LocalState.CHANGED else PathAction.KEEP
        if action is PathAction.WRITE and (is_within(path, kept) or is_within(path, held)):
            continue  # it is missing only since its directory is not there
        if action is PathAction.KEEP:
            kept[path] = remote
        elif action is PathAction.HOLD:
            held[path] = remote
        elif action is PathAction.SAVE:
            saved[path] = remote
    return SyncDecision(kept, held, saved)


def withheld(paths: Collection[str], decision: SyncDecision) -> frozenset[str]:
    """Return the paths that must not be written: those that stay there, and all below them."""
    stays = {*decision.kept, *decision.held}
    return frozenset(path for path in paths if is_within(path, stays)) if stays else frozenset()


def is_as(entry: Entry | None, remote: RemoteEntry) -> bool:
    """True if the sandbox holds this entry; of the mode counts only the bit that every extractor keeps."""
    if entry is None or remote.kind != entry.kind.value:
        return entry is None and remote.kind is RemoteKind.ABSENT
    if entry.kind is Kind.SYMLINK:
        return entry.target == remote.target
    if entry.kind is Kind.DIRECTORY:
        return True
    return remote.digest != b"" and remote.digest == arrived_digest(entry) and not (entry.mode ^ remote.mode) & 0o100


def as_entry(remote: RemoteEntry) -> Entry | None:
    """Return the entry that stands for what is there; None if it is of no kind that a snapshot holds, or not known."""
    kinds = {RemoteKind.FILE: Kind.FILE, RemoteKind.DIRECTORY: Kind.DIRECTORY, RemoteKind.SYMLINK: Kind.SYMLINK}
    kind = kinds.get(remote.kind)
    if kind is None or (kind is Kind.FILE and not remote.digest):
        return None
    return Entry(kind, remote.mode, remote.mtime_s, remote.size_bytes, remote.target, digest=remote.digest)


def was_emptied(missing: int, looked_at: int) -> bool:
    """True if the sandbox lost nearly everything that syncd had put there: it was reset, or is another one."""
    return missing > 0 and missing * 10 > looked_at * 9
