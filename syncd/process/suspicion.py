"""Where something may have changed since the last scan: in directories that events named, or anywhere.

Names are worth something only while every change is known to bring an event. After anything that shakes that (a start,
an overflow, a sleep, a failure, a part that cannot be watched), the next scan looks at everything, and so it does every
`sync.rescan_minutes`, come what may.
"""

from __future__ import annotations

from syncd.effects.hints import DIRTY_AT_MOST, Hints


class Suspicion:
    """Gathers hints between two scans."""

    def __init__(self) -> None:
        self._directories: set[str] = set()
        self._anywhere = True  # nothing was scanned yet

    def heard(self, hints: Hints) -> None:
        """Events came."""
        self._directories |= hints.dirty
        if hints.doubt is not None or len(self._directories) > DIRTY_AT_MOST:
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
