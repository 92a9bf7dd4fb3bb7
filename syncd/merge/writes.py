"""The rules of what comes home: the plan of a change of the workspace, its modes, and what an undo does.

They compare what was seen at a path with what it is to become, and decide whether it is still as the plan saw it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from enum import Enum, StrEnum

from msgspec import Struct
from msgspec.structs import replace

from syncd.model.entry import ALL_BITS, EXECUTABLE, Entry, Kind, mode_at_home
from syncd.model.reconcile import PlannedPath

OTHER = Entry(Kind.OTHER)  # nothing is written there
_READABLE = 0o444
_LINK_MODE = 0o777  # as a scan has it


class JournalPhase(StrEnum):
    """The progress of a write: until it is done, the workspace may be partly changed."""

    CHANGING = "changing"
    DONE = "done"


class PathChange(Struct, frozen=True, array_like=True):
    """One path that a write or an undo changes: what was seen there, and what it becomes; ABSENT: nothing.

    A file has a digest: one with another stamp and the same content has not changed. A directory is deleted
    only by a row of its own, and only if it is empty by then.

    `after` has a kind, and a target or permission bits: set-id and sticky bits stay as they are here. But what has a
    stamp was there before: it gets its time back, and all bits of its mode. `content` is the path of the file, on
    any file system, that holds a new file's bytes. It must not change meanwhile.
    """

    path: str
    before: Entry
    after: Entry
    content: str = ""

    @property
    def clears(self) -> bool:
        """True if what is there has to be removed by itself, as no rename can replace it."""
        if Kind.ABSENT in (self.before.kind, self.after.kind):
            return self.before.kind is not Kind.ABSENT
        return self.before.is_directory != self.after.is_directory

    @property
    def places(self) -> bool:
        """True if a temporary file or link is renamed."""
        return self.after.kind in (Kind.FILE, Kind.SYMLINK)


class WriteDecision(Enum):
    """The decision about one path of a write or an undo."""

    NOTHING = "it is already as it is to become"
    CHANGE = "it is as it was seen"
    LEAVE = "it was changed since"


def check_plan(plan: Sequence[PathChange]) -> None:
    """Raise `ValueError` if the plan cannot be meant: a caller's error, not a user's."""
    for change in plan:
        if "\0" in change.path or any(part in ("", ".", "..") for part in change.path.split("/")):
            raise ValueError(f"{change.path!r} is no path inside of the workspace")
        if any(entry.kind is Kind.FILE and not entry.digest for entry in (change.before, change.after)):
            raise ValueError(f"{change.path!r} has no digest")


def ancestors(path: str) -> Iterator[str]:
    """Yield the directories above a path, the top one first, without the workspace itself."""
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)


def by_depth(path: str) -> list[str]:
    """Return the key that sorts a directory before what is in it, and next to it."""
    return path.split("/")


def opened(mode: int) -> int:
    """Return the mode with which a directory is made: its owner can take that back."""
    return mode | stat.S_IRWXU


def decide(change: PathChange, now: Entry, phase: JournalPhase) -> WriteDecision:
    """Return what a write, or an undo, whose row is turned round, does to a path. `now` has the digest of a file.

    A phase of CHANGING means that the process was killed in a write or an undo, so that the path may be half-way.
    """
    before, after = change.before, change.after
    if now.kind in (Kind.OTHER, Kind.UNREAD):
        return WriteDecision.LEAVE
    if _is_as(now, after) and not (now.is_directory and (now.mode ^ after.mode) & ALL_BITS):
        return WriteDecision.NOTHING
    if _is_as(now, before):
        return WriteDecision.CHANGE
    # For a moment nothing is there, where a directory gives way to something else, or the other way round; and a
    # directory that was made has not got its mode yet.
    crosses = after.is_directory != before.is_directory and Kind.ABSENT not in (after.kind, before.kind)
    is_half_way = crosses if now.kind is Kind.ABSENT else now.is_directory and _is_as(now, after)
    return WriteDecision.CHANGE if is_half_way and phase is JournalPhase.CHANGING else WriteDecision.LEAVE


def _is_as(now: Entry, entry: Entry) -> bool:
    if now.kind is not entry.kind or now.kind is Kind.ABSENT:
        return now.kind is entry.kind
    if now.kind is Kind.SYMLINK:
        return now.target == entry.target
    mode, bits = now.mode & ALL_BITS, entry.mode & ALL_BITS
    if now.is_directory:
        return mode in (stat.S_IRWXU, bits)  # it is made with the first
    return now.digest == entry.digest and mode == bits


# -- modes, and what counts as sent


def taken_mode(base: Entry, here: Entry, there: Entry, umask: int) -> int:
    """Return the permission bits that a path gets here; the person's umask keeps others from new ones.

    A new path gets the sandbox's. Otherwise the bits here stay, but for a change of the owner's executable bit there:
    then whoever may read may execute, or nobody may.
    """
    if here.kind is not there.kind:
        mode = mode_at_home(there.mode, umask)
        return opened(mode) if there.is_directory else mode
    before = here.mode if base.kind is Kind.ABSENT else base.mode
    if here.is_directory or not (before ^ there.mode) & EXECUTABLE:
        return here.mode & ALL_BITS
    if there.mode & EXECUTABLE:
        return here.mode & ALL_BITS | mode_at_home((here.mode & _READABLE) >> 2, umask)
    return here.mode & 0o666


def merged_mode(base: Entry, here: Entry, there: Entry, umask: int) -> int:
    """Return the permission bits of a merged file: the side that changed the executable bit decides about it."""
    if base.kind is Kind.ABSENT or (here.mode ^ base.mode) & EXECUTABLE:
        return here.mode & ALL_BITS
    return taken_mode(base, here, there, umask)


def next_base(planned: PlannedPath, mode: int) -> Entry | None:
    """Return what counts as sent once the path was taken: the sandbox's version, with the mode that it has here."""
    there = planned.there
    if there.kind is Kind.ABSENT:
        return None
    mode = _LINK_MODE if there.kind is Kind.SYMLINK else mode
    taken = Entry(there.kind, mode, max(0, there.mtime_s), target=there.target)
    return replace(taken, size_bytes=there.size_bytes, digest=there.digest) if there.kind is Kind.FILE else taken
