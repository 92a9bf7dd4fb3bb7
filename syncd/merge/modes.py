"""The modes of what comes home, and the entry that counts as sent once it is here."""

from __future__ import annotations

from syncd.model.entry import EXECUTABLE, Entry, Kind
from syncd.model.reconcile import PlannedPath

_READABLE = 0o444
_LINK_MODE = 0o777  # as a scan has it


def taken_mode(base: Entry, here: Entry, there: Entry) -> int:
    """Return the permission bits that a path gets here.

    A new path gets the sandbox's. Otherwise the bits here stay, but for a change of the owner's executable bit there:
    then whoever may read may execute, or nobody may.
    """
    if here.kind is not there.kind:
        return there.mode & 0o777
    before = here.mode if base.kind is Kind.ABSENT else base.mode
    if here.is_directory or not (before ^ there.mode) & EXECUTABLE:
        return here.mode & 0o777
    return _executable_as(here.mode, there.mode)


def merged_mode(base: Entry, here: Entry, there: Entry) -> int:
    """Return the permission bits of a merged file: the side that changed the executable bit decides about it."""
    if base.kind is Kind.ABSENT or (here.mode ^ base.mode) & EXECUTABLE:
        return here.mode & 0o777
    return taken_mode(base, here, there)


def sent_mode(here: Entry, there: Entry) -> int:
    """Return the mode that counts as sent once a file was merged: the bits here, but as executable as there."""
    if not (here.mode ^ there.mode) & EXECUTABLE:
        return here.mode & 0o777
    return _executable_as(here.mode, there.mode)


def _executable_as(mode: int, mode_there: int) -> int:
    if mode_there & EXECUTABLE:
        return (mode | ((mode & _READABLE) >> 2)) & 0o777
    return mode & 0o666


def next_base(planned: PlannedPath, mode: int) -> Entry | None:
    """Return what counts as sent once the path was taken: the sandbox's version, with the mode that it has here."""
    there = planned.there
    if there.kind is Kind.ABSENT:
        return None
    is_file = there.kind is Kind.FILE
    return Entry(
        there.kind,
        _LINK_MODE if there.kind is Kind.SYMLINK else mode,
        max(0, there.mtime_s),
        there.size_bytes if is_file else 0,
        there.target,
        digest=there.digest if is_file else b"",
    )
