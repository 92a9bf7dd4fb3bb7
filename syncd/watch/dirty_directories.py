"""Where something may have changed since the last scan: in directories that events named, or anywhere.

The same of files that may hold something else than when they were read with no time of theirs to tell, as a write
through mmap does: those that events named, or any file whose times were young then.

Names are worth something only while every change is known to bring an event. After anything that shakes that (a start,
an overflow, a sleep, a failure, a part that cannot be watched), the next scan looks at everything, and so it does every
`sync.rescan_minutes`, come what may.
"""

from __future__ import annotations

from syncd.watch.changes import DIRTY_AT_MOST, WRITTEN_AT_MOST, Changes


class DirtyDirectories:
    """Gathers hints between two scans."""

    def __init__(self) -> None:
        self._directories: set[str] = set()
        self._anywhere = True  # nothing was scanned yet
        self._files: set[str] = set()
        self._any_file = False  # what an earlier process read is believed only where its times were old enough

    def heard(self, changes: Changes) -> None:
        """Events came."""
        self._directories |= changes.dirty | changes.unlinked
        self._files |= changes.written or set()
        if changes.rescan_reason is not None or changes.written is None or len(self._files) > WRITTEN_AT_MOST:
            self._any_file = True
            self._files.clear()
        if changes.rescan_reason is not None or len(self._directories) > DIRTY_AT_MOST:
            self.anywhere()

    def anywhere(self) -> None:
        """Names tell nothing any more."""
        self._anywhere = True
        self._directories.clear()

    def taken(self) -> frozenset[str] | None:
        """The directories to look at, or None for all; what comes from now on is for the scan after."""
        taken = None if self._anywhere else frozenset(self._directories)
        self._anywhere = False
        self._directories.clear()
        return taken

    def taken_files(self) -> frozenset[str] | None:
        """The files to read though their times are as they were, or None for all whose times were young."""
        taken = None if self._any_file else frozenset(self._files)
        self._any_file = False
        self._files.clear()
        return taken
