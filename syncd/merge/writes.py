"""The plan of a change of the workspace: what was seen at each path, and what it is to become.

The rules here compare such values. They decide whether a path is still as the plan saw it, and what an undo does to it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from enum import Enum, StrEnum

from msgspec import Struct

from syncd.model.entry import (
    Entry,
    Kind,
)

PERMISSIONS = 0o777  # the bits that a plan decides; set-id and sticky bits stay as they are here


OTHER = Entry(Kind.OTHER)  # nothing is written there


class NewEntry(Struct, frozen=True):
    """The entry that a path is to become. Only the permission bits of `mode` count, and none for a link.

    `content` is the path of the file, on any file system, that holds a file's bytes. It must not change meanwhile.
    """

    kind: Kind
    mode: int = 0
    target: str = ""
    content: str = ""


class Write(Struct, frozen=True):
    """One path of a plan. `before` is what was seen there; `after` None: it is deleted.

    A file in `before` has a stamp or a digest. With both, a file with another stamp and the same content has not
    changed. A directory is deleted only by a Write of its own, and only if it is empty by then.
    """

    path: str
    before: Entry
    after: NewEntry | None


class JournalPhase(StrEnum):
    """The progress of a write: only in the second phase may the workspace be partly changed."""

    PREPARING = "preparing"
    CHANGING = "changing"
    DONE = "done"


class JournalItem(Struct, frozen=True):
    """One path that a write changes. `number` names its temporary file; a file's old bytes begin at `kept_at`.

    `implied`: a directory that is created because something in it is, without a Write of its own.
    """

    number: int
    path: str
    before: Entry | None
    after: Entry | None
    kept_at: int = 0
    implied: bool = False


class Restoration(Enum):
    """The decision of an undo about one path."""

    NOT_NEEDED = "it is as it was before"
    RESTORE = "it is as the write left it"
    LEAVE = "it was changed since"


def check_plan(writes: Sequence[Write]) -> None:
    """Raise `ValueError` for a plan that cannot be meant: a caller's error, not a user's."""
    plan = {write.path: write for write in writes}
    if len(plan) != len(writes):
        raise ValueError("a path is in the plan twice")
    for write in writes:
        if "\0" in write.path or any(part in ("", ".", "..") for part in write.path.split("/")):
            raise ValueError(f"{write.path!r} is no path inside of the workspace")
        before = write.before
        if before.kind is Kind.FILE and before.stamp is None and not before.digest:
            raise ValueError(f"{write.path!r} has neither stamp nor digest")
        if write.after is None:
            continue
        for folder in ancestors(write.path):
            above = plan.get(folder)
            if above is not None and (above.after is None or above.after.kind is not Kind.DIRECTORY):
                raise ValueError(f"{write.path!r} is to be written below {folder!r}, which is to be no directory")


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


def may_be_as_planned(now: Entry | None, before: Entry) -> bool:
    """True if a path may be as the plan saw it. A file without `is_same_read` is so only if its digest is too."""
    if now is None:
        return before.kind is Kind.ABSENT
    if now.kind is Kind.OTHER or now.kind is not before.kind:
        return False
    if now.kind is Kind.SYMLINK:
        return now.target == before.target
    if (now.mode ^ before.mode) & PERMISSIONS:
        return False
    return now.is_directory or (
        now.size_bytes == before.size_bytes and (now.stamp == before.stamp or before.digest != b"")
    )


def restoration(item: JournalItem, now: Entry | None, phase: JournalPhase) -> Restoration:
    """Return what an undo does to a path. `now` has the digest of a file.

    A phase of CHANGING means that the process was killed in a write or an undo, so that the path may be half-way.
    """
    before, after = item.before, item.after
    if _is_as(now, before) and (now is None or not now.is_directory or _permissions(now) == _permissions(before)):
        return Restoration.NOT_NEEDED
    if _is_as(now, after):
        return Restoration.RESTORE
    if now is not None:
        # A directory that stays one, or that was put back, and whose mode was not set yet.
        return Restoration.RESTORE if now.is_directory and _is_as(now, before) else Restoration.LEAVE
    # A directory gives way to something else, or the other way round: for a moment nothing is there.
    crosses = before is not None and after is not None and before.is_directory != after.is_directory
    return Restoration.RESTORE if crosses and phase is JournalPhase.CHANGING else Restoration.LEAVE


def _is_as(now: Entry | None, entry: Entry | None) -> bool:
    if now is None or entry is None:
        return now is entry
    if now.kind is not entry.kind:
        return False
    if now.kind is Kind.SYMLINK:
        return now.target == entry.target
    if now.is_directory:
        # It is made with the first, filled with the second.
        return _permissions(now) in (stat.S_IRWXU, opened(_permissions(entry)), _permissions(entry))
    return now.digest == entry.digest and _permissions(now) == _permissions(entry)


def _permissions(entry: Entry | None) -> int:
    return 0 if entry is None else entry.mode & PERMISSIONS
