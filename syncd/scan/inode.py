"""What `stat` says of a path, as a manifest keeps it."""

from __future__ import annotations

import os
import stat

from syncd.scan.manifest import Entry, Kind, Stamp

_SECOND_NS = 1_000_000_000


def file_entry(status: os.stat_result) -> Entry:
    """The entry of a regular file whose content is not known yet."""
    return Entry(Kind.FILE, permissions(status.st_mode), mtime_s(status), status.st_size, stamp=stamp_of(status))


def directory_entry(status: os.stat_result) -> Entry:
    """The entry of a directory."""
    return Entry(Kind.DIRECTORY, permissions(status.st_mode), mtime_s(status))


def is_unchanged(entry: Entry, status: os.stat_result) -> bool:
    """Whether an entry is true still. A file whose content was not read, or too young, is not asked."""
    if entry.digest:
        return entry.stamp == stamp_of(status) and entry.size_bytes == status.st_size
    return entry.kind is Kind.DIRECTORY and entry == directory_entry(status)


def is_as_stated(entry: Entry, status: os.stat_result) -> bool:
    """True if a file's entry says what `stat` says now: the content that was read in between is the entry's."""
    return (
        entry.stamp == stamp_of(status)
        and entry.size_bytes == status.st_size
        and entry.mode == permissions(status.st_mode)
    )


def stamp_of(status: os.stat_result) -> Stamp:
    """What tells that a file is as it was."""
    return Stamp(status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


def mtime_s(status: os.stat_result) -> int:
    """The time of the last change in whole seconds, rounded down."""
    return status.st_mtime_ns // _SECOND_NS


def permissions(mode: int) -> int:
    """The mode as an archive keeps it: permission and sticky bits, never set-id."""
    return stat.S_IMODE(mode) & 0o1777
