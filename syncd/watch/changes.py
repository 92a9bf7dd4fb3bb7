"""What a watch tells the loop: that something happened, roughly where, and whether it may have missed more.

Changes are never the truth, the scan is. They cross from the reader's thread to the loop in a `ChangeQueue`, which
calls `WakeCallback` at most once until it is emptied: a checkout of 200,000 files is one byte in the loop's pipe.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

WakeCallback = Callable[[], None]
"""Wakes the loop: no payload, never blocks, never raises, callable from any thread and from a signal handler."""

DIRTY_AT_MOST = 4096
"""Directories named one by one; with more, reading the whole tree costs less than keeping the list."""
WRITTEN_AT_MOST = 4096
"""Files named one by one."""


class RescanReason(enum.IntEnum):
    """Why the named directories may not be all: only a full scan tells. The gravest of several is kept."""

    FLOOD = 1  # more directories than are worth naming
    COARSE = 2  # what was heard does not say where
    FAULT = 3  # an event could not be understood
    OVERFLOW = 4  # the kernel dropped events
    DEAF = 5  # the reader died; nothing is heard until the next `begin()`
    ROOT = 6  # the workspace itself was moved, removed, unmounted or put back


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since the last `take()`: `dirty` directories (relative, "" the workspace), and a doubt if any.

    `written` are files that were written, maybe with no time of theirs to tell; None: many in the `dirty` directories.
    In an `unlinked` directory something was written through a name that is gone: no reason to look, but to look there
    at the next opportunity.
    """

    dirty: frozenset[str] = frozenset()
    rescan_reason: RescanReason | None = None
    written: frozenset[str] | None = frozenset()
    unlinked: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.dirty) or self.rescan_reason is not None


class ChangeQueue:
    """Changes on their way from any thread to the one that takes them."""

    def __init__(self, wake: WakeCallback) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._dirty: set[str] = set()
        self._written: set[str] | None = set()
        self._unlinked: set[str] = set()
        self._rescan_reason: RescanReason | None = None
        self._rung = False

    def put(
        self,
        dirty: Collection[str] = (),
        rescan_reason: RescanReason | None = None,
        *,
        written: Collection[str] = (),
        unlinked: Collection[str] = (),
    ) -> None:
        """Adds hints, and rings unless it has rung since the last `take()`, or all are of unlinked names."""
        with self._lock:
            self._unlinked.update(unlinked)
            if len(self._unlinked) > DIRTY_AT_MOST:
                self._unlinked.clear()
                rescan_reason = max(rescan_reason or RescanReason.FLOOD, RescanReason.FLOOD)
            if not dirty and rescan_reason is None:
                return
            self._dirty.update(dirty)
            if self._written is not None:
                self._written.update(written)
                if len(self._written) > WRITTEN_AT_MOST:
                    self._written = None
            if len(self._dirty) > DIRTY_AT_MOST:
                self._dirty.clear()
                rescan_reason = max(rescan_reason or RescanReason.FLOOD, RescanReason.FLOOD)
            if rescan_reason is not None:
                self._rescan_reason = max(self._rescan_reason or rescan_reason, rescan_reason)
            ring, self._rung = not self._rung, True
        if ring:
            self._wake()

    def take(self) -> Changes:
        """Empties the box and lets it ring again. Drain the strobe's pipe before, or a ring between is lost."""
        with self._lock:
            written = None if self._written is None else frozenset(self._written)
            changes = Changes(frozenset(self._dirty), self._rescan_reason, written, frozenset(self._unlinked))
            self._dirty.clear()
            self._written = set()
            self._unlinked.clear()
            self._rescan_reason = None
            self._rung = False
        return changes
