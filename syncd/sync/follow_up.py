"""Files that are written while they are read: further syncs follow, but no command waits for a file without end."""

from __future__ import annotations

from collections.abc import Collection

from syncd.core.errors import SyncWarning, TryLater
from syncd.core.text import few, shown_path

# The number of syncs that follow the first one before a waiting command fails with the files that keep changing. A file
# that was written once while it was read is whole after one; a log that is written all the time never is.
FOLLOW_UPS = 2


def unsettled(before: Collection[str] | None, follow_up: Collection[str], torn: Collection[str]) -> frozenset[str]:
    """The paths for which a command must wait for another sync; `before`: those of the sync before, None at the first.

    A `torn` path is always one: half of its version in the sandbox may be older than the request. Of the others in
    `follow_up`, which vanished before they were read, only those that were named before are: the rest came later.
    """
    return frozenset(path for path in follow_up if before is None or path in before or path in torn)


def still_changing(paths: Collection[str]) -> TryLater:
    """The error of a command that waited for files that kept changing."""
    theirs = "its copy" if len(paths) == 1 else "their copies"
    return TryLater(
        f"{_names(paths)} kept changing while being read: {theirs} in the sandbox may be half old and half new, "
        "all else is there",
        "try again when nothing writes there, or leave it out in .syncdignore",
    )


def left_out(obstructed: Collection[str]) -> TryLater:
    """The error of a command whose paths have no place in the sandbox, as an obstacle is there."""
    are = "is" if len(obstructed) == 1 else "are"
    return TryLater(
        f"{_names(obstructed)} {are} not in the sandbox, where something else has that place; all else is there",
        "`syncd status` names what it is, and what to do before you run `syncd push --force`",
    )


def _names(paths: Collection[str]) -> str:
    return ", ".join(few([repr(shown_path(path)) for path in sorted(paths)], len(paths)))


def torn_copy(path: str) -> SyncWarning:
    """The warning that stays until a later sync has read the file while it was unchanged."""
    what = f"{shown_path(path)!r} was written while it was read: its copy in the sandbox may be half old and half new"
    return SyncWarning(
        f"torn:{path}", what, "the next sync sends it again; a file that never rests belongs in .syncdignore"
    )
