"""The rules of what comes home: the plan of a change of the workspace, its modes, and what an undo does.

They compare what was seen at a path with what it is to become, and decide whether it is still as the plan saw it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from enum import Enum, StrEnum

from msgspec import Struct
from msgspec.structs import replace

from syncd.model.entry import ALL_BITS, EXECUTABLE, Entry, Kind
from syncd.model.reconcile import PlannedPath

OTHER = Entry(Kind.OTHER)  # nothing is written there
_READABLE = 0o444
_LINK_MODE = 0o777  # as a scan has it


class Write(Struct, frozen=True):
    """One path of a plan. `before` is what was seen there, `after` what it is to become; ABSENT: nothing.

    A file in `before` has a stamp or a digest. With both, a file with another stamp and the same content has not
    changed. A directory is deleted only by a Write of its own, and only if it is empty by then.

    Of `after` only kind, target and permission bits count; set-id and sticky bits stay as they are here. `content` is
    the path of the file, on any file system, that holds a file's bytes. It must not change meanwhile.
    """

    path: str
    before: Entry
    after: Entry
    content: str = ""


class JournalPhase(StrEnum):
    """The progress of a write: only in the second phase may the workspace be partly changed."""

    PREPARING = "preparing"
    CHANGING = "changing"
    DONE = "done"


class PathChange(Struct, frozen=True, array_like=True):
    """One path that a write or an undo changes. `number` names its temporary file.

    An entry in `after` that has a stamp was there before: it gets its time back, and all bits of its mode. The bytes
    that an undo needs of a file begin at `kept_at`. `implied`: a directory that is created because something in it is,
    without a Write of its own.
    """

    number: int
    path: str
    before: Entry
    after: Entry
    kept_at: int = 0
    implied: bool = False

    @property
    def clears(self) -> bool:
        """True if what is there has to be removed by itself, as no rename can replace it."""
        if Kind.ABSENT in (self.before.kind, self.after.kind):
            return self.before.kind is not Kind.ABSENT
        return self.before.is_directory != self.after.is_directory

    @property
    def creates_directory(self) -> bool:
        """True if a directory is to be created."""
        return self.after.is_directory and not self.before.is_directory

    @property
    def places(self) -> bool:
        """True if a temporary file or link is renamed."""
        return self.after.kind in (Kind.FILE, Kind.SYMLINK)


class Restoration(Enum):
    """The decision of an undo about one path."""

    NOT_NEEDED = "it is as it was before"
    RESTORE = "it is as the write left it"
    LEAVE = "it was changed since"


def check_plan(writes: Sequence[Write]) -> dict[str, Write]:
    """Return the plan by path. Raises `ValueError` if it cannot be meant: a caller's error, not a user's."""
    plan = {write.path: write for write in writes}
    if len(plan) != len(writes):
        raise ValueError("a path is in the plan twice")
    for write in writes:
        if "\0" in write.path or any(part in ("", ".", "..") for part in write.path.split("/")):
            raise ValueError(f"{write.path!r} is no path inside of the workspace")
        before = write.before
        if before.kind is Kind.FILE and before.stamp is None and not before.digest:
            raise ValueError(f"{write.path!r} has neither stamp nor digest")
        if write.after.kind is Kind.ABSENT:
            continue
        for folder in ancestors(write.path):
            if folder in plan and not plan[folder].after.is_directory:
                raise ValueError(f"{write.path!r} is to be written below {folder!r}, which is to be no directory")
    return plan


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
    """Return the mode of a directory while it is changed."""
    return mode | stat.S_IRWXU


def is_closed(entry: Entry) -> bool:
    """True for a directory whose owner may not see or change what is in it."""
    return entry.is_directory and entry.mode != opened(entry.mode)


def may_be_as_planned(now: Entry, before: Entry) -> bool:
    """True if a path may be as the plan saw it. A file with another stamp is so only if its digest is the same."""
    if now.kind is Kind.OTHER or now.kind is not before.kind:
        return False
    if now.kind is Kind.SYMLINK:
        return now.target == before.target
    if (now.mode ^ before.mode) & ALL_BITS:
        return False
    return now.kind is not Kind.FILE or (
        now.size_bytes == before.size_bytes and (now.stamp == before.stamp or before.digest != b"")
    )


def restoration(change: PathChange, now: Entry, phase: JournalPhase) -> Restoration:
    """Return what an undo does to a path. `now` has the digest of a file.

    A phase of CHANGING means that the process was killed in a write or an undo, so that the path may be half-way.
    """
    before, after = change.before, change.after
    if _is_as(now, before) and not (now.is_directory and (now.mode ^ before.mode) & ALL_BITS):
        return Restoration.NOT_NEEDED
    if _is_as(now, after):
        return Restoration.RESTORE
    if now.kind is not Kind.ABSENT:
        # A directory that stays one, or that was put back, and whose mode was not set yet.
        return Restoration.RESTORE if now.is_directory and _is_as(now, before) else Restoration.LEAVE
    # A directory gives way to something else, or the other way round: for a moment nothing is there.
    crosses = before.is_directory != after.is_directory and Kind.ABSENT not in (before.kind, after.kind)
    return Restoration.RESTORE if crosses and phase is JournalPhase.CHANGING else Restoration.LEAVE


def _is_as(now: Entry, entry: Entry) -> bool:
    if now.kind is not entry.kind or now.kind is Kind.ABSENT:
        return now.kind is entry.kind
    if now.kind is Kind.SYMLINK:
        return now.target == entry.target
    mode, bits = now.mode & ALL_BITS, entry.mode & ALL_BITS
    if now.is_directory:
        # It is made with the first, filled with the second.
        return mode in (stat.S_IRWXU, opened(bits), bits)
    return now.digest == entry.digest and mode == bits


# -- modes, and what counts as sent


def taken_mode(base: Entry, here: Entry, there: Entry) -> int:
    """Return the permission bits that a path gets here.

    A new path gets the sandbox's. Otherwise the bits here stay, but for a change of the owner's executable bit there:
    then whoever may read may execute, or nobody may.
    """
    if here.kind is not there.kind:
        return there.mode & ALL_BITS
    before = here.mode if base.kind is Kind.ABSENT else base.mode
    if here.is_directory or not (before ^ there.mode) & EXECUTABLE:
        return here.mode & ALL_BITS
    if there.mode & EXECUTABLE:
        return (here.mode | ((here.mode & _READABLE) >> 2)) & ALL_BITS
    return here.mode & 0o666


def merged_mode(base: Entry, here: Entry, there: Entry) -> int:
    """Return the permission bits of a merged file: the side that changed the executable bit decides about it."""
    if base.kind is Kind.ABSENT or (here.mode ^ base.mode) & EXECUTABLE:
        return here.mode & ALL_BITS
    return taken_mode(base, here, there)


def next_base(planned: PlannedPath, mode: int) -> Entry | None:
    """Return what counts as sent once the path was taken: the sandbox's version, with the mode that it has here."""
    there = planned.there
    if there.kind is Kind.ABSENT:
        return None
    mode = _LINK_MODE if there.kind is Kind.SYMLINK else mode
    taken = Entry(there.kind, mode, max(0, there.mtime_s), target=there.target)
    return replace(taken, size_bytes=there.size_bytes, digest=there.digest) if there.kind is Kind.FILE else taken
