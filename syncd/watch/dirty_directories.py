"""Collects where the workspace may have changed since the last scan: in directories that events named, or anywhere.

It also collects files whose content may have changed without their times, as by a write through mmap: the files that
events named, or all whose times were recent when they were read.

The names are sufficient only while every change causes an event. After a start, an overflow, a suspend, a failure, or
if a part cannot be watched, the next scan is a full one. So is one every `sync.rescan_minutes` in any case.
"""

from __future__ import annotations

from syncd.watch.changes import MAX_DIRTY, MAX_WRITTEN, Changes


class DirtyDirectories:
    """The directories and files that the next scan has to examine."""

    def __init__(self) -> None:
        self._directories: set[str] = set()
        self._all = True  # nothing was scanned yet
        self._files: set[str] = set()
        self._all_files = False  # an earlier process's stamps are used only where the times were old enough

    def add(self, changes: Changes) -> None:
        """Add what events reported."""
        self._directories |= changes.dirty | changes.unlinked
        self._files |= changes.written or set()
        if changes.rescan_reason is not None or changes.written is None or len(self._files) > MAX_WRITTEN:
            self._all_files = True
            self._files.clear()
        if changes.rescan_reason is not None or len(self._directories) > MAX_DIRTY:
            self.mark_all()

    def mark_all(self) -> None:
        """Make the next scan a full one."""
        self._all = True
        self._directories.clear()

    def take(self) -> frozenset[str] | None:
        """Return the directories to scan, or None for all; later changes are for the scan after that."""
        taken = None if self._all else frozenset(self._directories)
        self._all = False
        self._directories.clear()
        return taken

    def take_files(self) -> frozenset[str] | None:
        """Return the files to read although their times are unchanged, or None for all whose times were recent."""
        taken = None if self._all_files else frozenset(self._files)
        self._all_files = False
        self._files.clear()
        return taken
