"""Converts the results of `stat` to entries of a manifest."""

from __future__ import annotations

import os

from syncd.model.entry import Entry, Kind, Stamp

_SECOND_NS = 1_000_000_000
_PERMISSIONS = 0o1777


def file_entry(status: os.stat_result) -> Entry:
    """Return the entry of a regular file, without a digest."""
    return Entry(Kind.FILE, permissions(status.st_mode), mtime_s(status), status.st_size, stamp=stamp_of(status))


def directory_entry(status: os.stat_result) -> Entry:
    """Return the entry of a directory."""
    return Entry(Kind.DIRECTORY, permissions(status.st_mode), mtime_s(status))


def is_unchanged(entry: Entry, status: os.stat_result) -> bool:
    """True if an entry is still valid. That of a file without digest, or without stamp, is not."""
    if entry.digest:
        return entry.stamp == stamp_of(status) and entry.size_bytes == status.st_size
    return entry.kind is Kind.DIRECTORY and entry == directory_entry(status)


def matches_status(entry: Entry, status: os.stat_result) -> bool:
    """True if a file's entry matches its status after a read: then the content is that of the entry."""
    return (
        entry.size_bytes == status.st_size
        and entry.mode == status.st_mode & _PERMISSIONS
        and entry.stamp == Stamp(status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    )


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp of a file: as long as it is the same, so is the content."""
    return Stamp(status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


def mtime_s(status: os.stat_result) -> int:
    """Return the modification time in whole seconds, rounded down."""
    return status.st_mtime_ns // _SECOND_NS


def permissions(mode: int) -> int:
    """Return the mode for an archive: permission and sticky bits, without the set-id bits."""
    return mode & _PERMISSIONS
