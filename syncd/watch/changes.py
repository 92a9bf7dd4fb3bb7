"""The changes that were reported since the last scan, when a burst of them is synced, and what a scan tells the watch.

Changes are only hints; the scan is the truth. Their names are sufficient only while every change causes an event. After
a start, an overflow, a suspend, a failure, or if a part cannot be watched, the next scan is a full one. So is one every
`sync.rescan_minutes` in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from msgspec import Struct

from syncd.selection.selection import Scope

MAX_DIRTY = 4096
"""The most directories in the list; with more, scanning the whole tree costs less than keeping the list."""


class Changes(Struct, frozen=True):
    """The changes that some events report: `dirty` directories (relative, "" is the workspace) and `modified` files.

    The files were modified, perhaps without a change of their times, as through a mapping. `rescan`: there may be more
    changes than these.
    """

    dirty: frozenset[str] = frozenset()
    modified: frozenset[str] = frozenset()
    rescan: bool = False

    def __bool__(self) -> bool:
        return self.rescan or bool(self.dirty)


class DirtyDirectories:
    """The directories that the next scan has to examine, whichever sandbox it is for.

    The next scan of everything is made at `rescan_at_s` or before.
    """

    def __init__(self, rescan_s: float) -> None:
        """Everything is scanned again after `rescan_s`."""
        self.rescan_at_s = -inf
        self._rescan_s = rescan_s
        self._directories: set[str] = set()
        self._all = True  # nothing was scanned yet
        self._scanned_all_s = -inf

    def add(self, changes: Changes) -> None:
        self._directories |= changes.dirty
        if changes.rescan or len(self._directories) > MAX_DIRTY:
            self.mark_all()

    def mark_all(self) -> None:
        """Make the next scan a full one."""
        self._all = True
        self._directories.clear()

    def take(self, now_s: float, all_since_s: float = -inf) -> frozenset[str] | None:
        """Return the directories that a scan has to list now; later changes are for the scan after that.

        None for all: nobody knows which, it is time, or not everything was scanned after `all_since_s`. All times are
        monotonic seconds.
        """
        is_full = self._all or self.rescan_at_s <= now_s or self._scanned_all_s <= all_since_s
        only = None if is_full else frozenset(self._directories)
        if is_full:
            self._scanned_all_s, self.rescan_at_s = now_s, now_s + self._rescan_s
        self._all = False
        self._directories.clear()
        return only


class Burst(Struct, frozen=True):
    """The times of the first and the last of the changes that are synced together, in monotonic seconds."""

    first_s: float
    last_s: float


def extend(burst: Burst | None, now_s: float) -> Burst:
    """Return the burst with one more change, at this time."""
    return Burst(now_s if burst is None else burst.first_s, now_s)


def joined(burst: Burst, later: Burst | None) -> Burst:
    """Return the burst with the changes of a later one, if there is one."""
    return burst if later is None else Burst(burst.first_s, max(burst.last_s, later.last_s))


def due_s(burst: Burst, quiet_s: float, max_wait_s: float) -> float:
    """Return the monotonic second at which the burst is synced if no further change comes."""
    return min(burst.last_s + quiet_s, burst.first_s + max_wait_s)


def unfinished(burst: Burst, found_s: float, now_s: float, quiet_s: float, max_wait_s: float) -> Burst | None:
    """Return the burst with a change at `found_s`, which no event told of; None if it is due all the same."""
    longer = joined(burst, Burst(found_s, found_s))
    return longer if now_s < due_s(longer, quiet_s, max_wait_s) else None


class ScanListener:
    """Receives the directories that a scan walks; the watch watches exactly these.

    This one does nothing with them: commands that scan once need no more.
    """

    def begin(self) -> None:
        """Begin a full scan."""

    def add_rule_files(self, directories: Mapping[str, frozenset[str]]) -> None:
        """Add directories outside of the scan that hold or may later hold rules, each with the files' names."""

    def add_directory(self, path: str, fd: int, scope: Scope) -> None:
        """Add a directory; the scan lists it afterwards."""

    def finish(self) -> None:
        """End a full scan that succeeded: what it did not add no longer exists."""
