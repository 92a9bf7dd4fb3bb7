"""The values that tell of one sync: its reason, what leaves this machine, what became of it and of each path.

A sync that read files while they were written is followed by others, but no command waits for a file without end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum, StrEnum

from msgspec import Struct

from syncd.core.errors import SyncWarning, TryLater
from syncd.core.text import few, shown_path
from syncd.model.entry import Entry
from syncd.model.manifest import Difference, Manifest, difference
from syncd.sandbox.sandbox_content import SandboxContent
from syncd.selection.secret_scanner import Secret, secret_warning, sent_secret_warning
from syncd.sync.status_document import LastSync


class Change(StrEnum):
    """The kinds of change of a path in the sandbox."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


def arrived_changes(before: SandboxContent, now: SandboxContent) -> Difference:
    """Return the changes between two syncs; all paths are added if it is not known what was there before.

    What stays as it is in the sandbox counts in the base as it was sent last, so it is no change. What was deleted here
    and stays there is a leftover: it is removed by the sync after which it is none any more.
    """
    if not now.is_known:
        return Difference()
    if not before.is_known:
        return Difference(added=now.base.copy())
    found = difference(before.base, now.base)
    left_before, left = before.leftovers, now.leftovers
    if not left_before and not left:
        return Difference(found.added, [*found.changed, *found.to_read], found.removed)
    was_left = [path for path in found.added if path in left_before]
    new = [path for path in found.added if path not in left_before]
    late = sorted(path for path in left_before - left if path not in now.base)
    removed = [*(path for path in found.removed if path not in left), *late]
    return Difference(new, [*found.changed, *found.to_read, *was_left], removed)


def combined(before: Change | None, now: Change) -> Change | None:
    """Return what two changes of a path are together; None: nothing."""
    if now is Change.REMOVED:
        return None if before is Change.ADDED else Change.REMOVED
    if before is None or before is Change.ADDED:
        return before or now
    return Change.CHANGED


def combine(changes: dict[str, Change], arrived: Difference) -> None:
    """Add the changes of one more sync, so that those of several are told of as those of one."""
    if isinstance(arrived.added, Manifest):  # of a first one
        changes.clear()
    for change in Change:
        for path in getattr(arrived, change):
            both = combined(changes.pop(path, None), change)
            if both is not None:
                changes[path] = both


class SyncReason(Enum):
    """A reason for a sync."""

    START = "start"  # what changed while nothing ran, or by another configuration, is not known
    ORDER = "asked for"
    CHANGE = "changes"
    RESCAN = "a periodic look"
    RETRY = "another try after a failure"


class ChangeCounts(Struct, frozen=True):
    """The numbers of paths that differ from what the sandbox held before."""

    added: int = 0
    changed: int = 0
    removed: int = 0


class Outcome(Struct, frozen=True):
    """The result of a sync.

    `sync` is None if nothing had to be sent. `follow_up` are paths that another sync must send, as they changed or
    vanished while they were read; `torn` are those of them whose copy in the sandbox may be half old and half new.
    `obstructed` are held paths whose places in the sandbox are taken: they, and what is below them, are left out;
    `held` those that both sides changed, and that stay as they are there. `saved` are those of which the agent's
    version was saved, and `overwritten` counts those of them that had to give way as both sides had changed; `push
    --force` counts none of these. `arrived` are the paths that are different in the sandbox for it, None if nothing was
    sent; so is `change`, None too if it is not known what the sandbox held before.
    """

    sync: LastSync | None
    follow_up: tuple[str, ...] = ()
    files: int = 0
    change: Difference | None = None
    torn: tuple[str, ...] = ()
    obstructed: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()
    overwritten: int = 0
    arrived: Difference | None = None

    @property
    def counts(self) -> ChangeCounts | None:
        """The numbers of `change`, None where that is not known."""
        found = self.change
        return None if found is None else ChangeCounts(len(found.added), len(found.changed), len(found.removed))

    @property
    def word(self) -> str:
        """The outcome's name in logs and in `push --json`."""
        return "initialized" if self.sync else "unchanged"


# The number of syncs that follow the first one before a waiting command fails with the files that keep changing. A file
# that was written once while it was read is whole after one; a log that is written all the time never is.
_FOLLOW_UPS = 2


def unsettled(before: Collection[str] | None, follow_up: Collection[str], torn: Collection[str]) -> frozenset[str]:
    """The paths for which a command must wait for another sync; `before`: those of the sync before, None at the first.

    A `torn` path is always one: half of its version in the sandbox may be older than the request. Of the others in
    `follow_up`, which vanished before they were read, only those that were named before are: the rest came later.
    """
    return frozenset(path for path in follow_up if before is None or path in before or path in torn)


def is_given_up(left: Collection[str], syncs: int) -> bool:
    """True if a command that was served by so many syncs before waits no longer for the paths that are left."""
    return bool(left) and syncs >= _FOLLOW_UPS


def still_changing(paths: Collection[str]) -> TryLater:
    """The error of a command that waited for files that kept changing."""
    theirs = "its copy" if len(paths) == 1 else "their copies"
    return TryLater(
        f"{_names(paths)} kept changing while being read: {theirs} in the sandbox may be half old and half new, "
        "all else is there",
        "try again when nothing writes there, or exclude it in .syncdignore",
    )


def obstructed_paths(obstructed: Collection[str]) -> TryLater:
    """The error of a command whose paths have no place in the sandbox, as an obstacle is there."""
    are = "is" if len(obstructed) == 1 else "are"
    return TryLater(
        f"{_names(obstructed)} {are} not in the sandbox, where something else has that place; all else is there",
        "`syncd status` names what it is, and what to do before you run `syncd push --force`",
    )


def _names(paths: Collection[str]) -> str:
    return ", ".join(few([f"'{shown_path(path)}'" for path in sorted(paths)], len(paths)))


def torn_copy(path: str) -> SyncWarning:
    """The warning that stays until a later sync has read the file while it was unchanged."""
    what = f"'{shown_path(path)}' was written while it was read: its copy in the sandbox may be half old and half new"
    return SyncWarning(
        f"torn:{path}", what, "the next sync sends it again; a file that never rests belongs in .syncdignore"
    )


def secret_warnings(
    secret_files: Mapping[str, tuple[Entry, Secret]], content: SandboxContent, left: Collection[str]
) -> list[SyncWarning]:
    """The warnings about files that are excluded for a secret, and about those that are gone here and `left` there."""
    found = [
        secret_warning(path, each, sent=bool(content.versions_of(path))) for path, (_, each) in secret_files.items()
    ]
    return [*found, *map(sent_secret_warning, sorted(path for path in left if path not in secret_files))]


EMPTY_PERHAPS = SyncWarning(
    "unknown",
    "nobody could look if the sandbox still has what was sent",
    "the next request asks again; `syncd push --force` sends everything",
)
