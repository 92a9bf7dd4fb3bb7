"""The fallback watch, for a version of watchdog whose inotify layer syncd does not know.

It uses only watchdog's public observer, on the whole tree with its ignored folders. Every event means only that
something changed. Lost events cannot be detected (overflow, limits, a moved workspace), so the workspace is polled too.
"""

from __future__ import annotations

import errno
import os

from watchdog import events
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from syncd.core.file_identity import FileIdentity, persistent_identity_of
from syncd.core.warning import SyncWarning
from syncd.watch import inotify_limits
from syncd.watch.changes import ChangeQueue, Changes, RescanReason, WakeCallback
from syncd.watch.scan_listener import NoScanListener

# Without a filter, the daemon's own reading would cause events. Attrib needs Modified beside it; without Created and
# Moved, new directories are never watched.
CHANGES: list[type[events.FileSystemEvent]] = [
    events.FileCreatedEvent,
    events.FileDeletedEvent,
    events.FileMovedEvent,
    events.FileModifiedEvent,
    events.FileAttribEvent,
    events.FileClosedEvent,
    events.DirCreatedEvent,
    events.DirDeletedEvent,
    events.DirMovedEvent,
]

_COARSE = SyncWarning(
    "watch:coarse",
    "this version of watchdog is not known, the workspace is watched coarsely and polled",
    "install the version that syncd asks for, with `pip install 'watchdog~=7.1.0'`",
)


class _Handler(events.FileSystemEventHandler):
    def __init__(self, change_queue: ChangeQueue) -> None:
        self._change_queue = change_queue

    def dispatch(self, event: events.FileSystemEvent) -> None:  # noqa: ARG002 - every event means the same
        self._change_queue.put(rescan_reason=RescanReason.UNKNOWN_DIRECTORY)


class FallbackWatch(NoScanListener):
    """A `Watcher` that reports no directories. The observer finds directories itself, and polling finds the rest."""

    def __init__(self, root: str, wake: WakeCallback) -> None:
        self._root = root
        self._change_queue = ChangeQueue(wake)
        self._observer: BaseObserver | None = None
        self._watched: FileIdentity | None = None
        self._warning = _COARSE

    def open(self) -> None:
        """Start the observer; if that fails, `warnings()` says why."""
        self.close()
        observer = Observer()
        try:
            observer.schedule(_Handler(self._change_queue), self._root, recursive=True, event_filter=CHANGES)
            observer.start()
            self._watched = self._identity()
        except (OSError, RuntimeError) as error:
            cause = error if isinstance(error, OSError) else OSError(errno.EAGAIN, str(error))
            self._warning = inotify_limits.no_instance(cause)
            self._end(observer)
            return
        self._observer, self._warning = observer, _COARSE

    def close(self) -> None:
        """End the threads. It may be called again."""
        observer, self._observer = self._observer, None
        if observer is not None:
            self._end(observer)

    def begin(self) -> None:
        """Start the observer again if it failed, ended, or watches a directory that is no longer the workspace."""
        if not self.alive():
            self.open()

    def take(self) -> Changes:
        """Return whether anything happened since the last call."""
        return self._change_queue.take()

    def warnings(self) -> tuple[SyncWarning, ...]:
        """Return the reason why the workspace is polled."""
        return (self._warning,)

    def unwatched(self) -> int:
        """Return 0: the number is not known, and the whole workspace is polled."""
        return 0

    @property
    def needs_polling(self) -> bool:
        """True in any case."""
        return True

    def alive(self) -> bool:
        """True if all threads run, and the workspace is still the directory that is watched."""
        observer = self._observer
        if observer is None or not observer.is_alive() or not all(each.is_alive() for each in observer.emitters):
            return False
        try:
            return self._identity() == self._watched
        except OSError:
            return False

    def _identity(self) -> FileIdentity:
        descriptor = os.open(self._root, os.O_PATH | os.O_CLOEXEC)
        try:
            return persistent_identity_of(descriptor)
        finally:
            os.close(descriptor)

    @staticmethod
    def _end(observer: BaseObserver) -> None:
        observer.stop()
        if observer.ident is not None:
            observer.join(2.0)
