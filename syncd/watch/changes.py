"""Passes changes from a watch to the loop: the directories they are in, and the reason if more may have been missed.

Changes are only hints; the scan is the truth. They get from the reader's thread to the loop in a `ChangeQueue`, which
calls `WakeCallback` at most once until it is emptied: a checkout of 200,000 files is one byte in the loop's pipe.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Collection

from msgspec import Struct

WakeCallback = Callable[[], None]
"""Wakes the loop. It has no payload, never blocks or raises, and may be called in any thread and signal handler."""

MAX_DIRTY = 4096
"""The most directories in the list; with more, scanning the whole tree costs less than keeping the list."""
MAX_WRITTEN = 4096
"""The most files in the list."""


class RescanReason(enum.IntEnum):
    """The reason for a full scan, as the list of directories may be incomplete. Of several, the gravest is kept."""

    TOO_MANY = 1  # more directories than the list may hold
    UNKNOWN_DIRECTORY = 2  # the event does not name a directory
    ERROR = 3  # an event could not be parsed
    OVERFLOW = 4  # the kernel dropped events
    READER_DIED = 5  # the reader died; no events are received until the next `begin()`
    WORKSPACE = 6  # the workspace itself was moved, removed, unmounted or put back


class Changes(Struct, frozen=True):
    """The changes since the last `take()`: `dirty` directories (relative, "" is the workspace), and a rescan reason.

    `written` files were written, perhaps without a change of their times; None: there are too many, in the `dirty`
    directories. In an `unlinked` directory a file was written through a name that was removed. That is no reason for
    a scan, but the next scan includes the directory.
    """

    dirty: frozenset[str] = frozenset()
    rescan_reason: RescanReason | None = None
    written: frozenset[str] | None = frozenset()
    unlinked: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.dirty) or self.rescan_reason is not None


class ChangeQueue:
    """A queue of changes from any thread to the one that takes them."""

    def __init__(self, wake: WakeCallback) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._dirty: set[str] = set()
        self._written: set[str] | None = set()
        self._unlinked: set[str] = set()
        self._rescan_reason = 0  # 0: none
        self._woken = False

    def put(
        self,
        dirty: Collection[str] = (),
        rescan_reason: RescanReason | None = None,
        *,
        written: Collection[str] = (),
        unlinked: Collection[str] = (),
    ) -> None:
        """Add changes, and call `wake` unless it was called since the last `take()`, or all names are unlinked."""
        reason = rescan_reason or 0
        with self._lock:
            self._unlinked.update(unlinked)
            if len(self._unlinked) > MAX_DIRTY:
                self._unlinked.clear()
                reason = max(reason, RescanReason.TOO_MANY)
            if not dirty and not reason:
                return
            self._dirty.update(dirty)
            if self._written is not None:
                self._written.update(written)
                if len(self._written) > MAX_WRITTEN:
                    self._written = None
            if len(self._dirty) > MAX_DIRTY:
                self._dirty.clear()
                reason = max(reason, RescanReason.TOO_MANY)
            self._rescan_reason = max(self._rescan_reason, reason)
            wake, self._woken = not self._woken, True
        if wake:
            self._wake()

    def take(self) -> Changes:
        """Empty the queue, and let it call `wake` again. Drain the wake-up pipe before, or a wake-up may be lost."""
        with self._lock:
            written = None if self._written is None else frozenset(self._written)
            reason = RescanReason(self._rescan_reason) if self._rescan_reason else None
            changes = Changes(frozenset(self._dirty), reason, written, frozenset(self._unlinked))
            self._dirty.clear()
            self._written = set()
            self._unlinked.clear()
            self._rescan_reason = 0
            self._woken = False
        return changes
