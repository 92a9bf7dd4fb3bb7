"""Wraps watchdog's inotify thread for single directories.

watchdog's observer watches whole trees and cannot exclude a part; its `InotifyFD` watches one directory at a time. Only
its descriptor, its thread and its parser are used here. The watch itself maps watch descriptors to paths, which saves
two thirds of the memory and most of the time for each event. `InotifyFD` is an internal class of watchdog, so
`watchdog~=7.1.0` is pinned, and its behaviour has tests here.

Sources: inotify(7), inotify_add_watch(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
from collections.abc import Callable, Iterable

from watchdog.observers.inotify_c import InotifyConstants as In
from watchdog.observers.inotify_c import InotifyFD, Mask, inotify_add_watch, inotify_rm_watch

logger = logging.getLogger(__name__)

Event = tuple[int, int, int, bytes]
"""Watch descriptor (-1: the queue itself), mask, cookie, name ("" for the directory itself)."""

CHANGES = (
    In.IN_CREATE
    | In.IN_DELETE
    | In.IN_MODIFY
    | In.IN_ATTRIB
    | In.IN_MOVED_FROM
    | In.IN_MOVED_TO
    # A write through mmap causes no IN_MODIFY, but IN_CLOSE_WRITE when the last writable descriptor or mapping ends.
    | In.IN_CLOSE_WRITE
)
"""Without IN_OPEN, IN_ACCESS and IN_CLOSE_NOWRITE: the daemon's own reading must not start a sync."""
WRITES = In.IN_MODIFY | In.IN_ATTRIB | In.IN_CLOSE_WRITE
"""For a file with several names. An event's name may no longer exist: a log that was renamed by `ln` and `rm` is still
written through its old name, and an O_TMPFILE through "#" and its inode number. IN_EXCL_UNLINK would suppress all of
these events."""
SELF = In.IN_DELETE_SELF | In.IN_MOVE_SELF
"""Only for the workspace: for every other directory the parent's watch reports this."""
ENTRIES = In.IN_CREATE | In.IN_DELETE | In.IN_MOVED_FROM | In.IN_MOVED_TO
"""For the directory that holds the workspace."""
RULES = ENTRIES | In.IN_CLOSE_WRITE | In.IN_ATTRIB | In.IN_MASK_ADD
"""For a directory with rules outside of the workspace; added to the events that it is already watched for."""
REMOVED = SELF | In.IN_UNMOUNT | In.IN_IGNORED

PAUSE_S = 0.01
"""The pause after a read. It collects events, so that a burst costs a third. The kernel's queue holds 16,384 events;
with 20 ms it overflowed."""
JOIN_S = 2.0
BUFFER_BYTES = 256 * 1024


class Inotify(InotifyFD):
    """An inotify instance and the thread that reads it.

    `deliver` gets the events of each read, in the reader's thread; `on_death` is called there if the thread ends
    without `shut_down`. Raises `OSError` (EMFILE: the user's instances, or the process's descriptors, are used up).
    """

    def __init__(self, deliver: Callable[[Iterable[Event]], None], on_death: Callable[[], None]) -> None:
        try:
            super().__init__()
        except OSError:
            # The pipe could not be created, after the inotify descriptor was: close it, as no other code does.
            if (fd := getattr(self, "_inotify_fd", -1)) >= 0:
                os.close(fd)
            raise
        self.name = "syncd-watch"
        self._deliver = deliver
        self._on_death = on_death

    @classmethod
    def _create_inotify_fd(cls) -> int:
        fd = super()._create_inotify_fd()
        if fd == -1:  # InotifyFD ignores EACCES
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        os.set_inheritable(fd, False)
        return fd

    def add(self, path: bytes, mask: int) -> int:
        """Watch the directory at `path` (again) for `mask`; the watch descriptor is the same for the same inode.

        Raises `OSError`: ENOSPC (limit of watches), EACCES (unreadable), ENOENT, ENOTDIR, ENAMETOOLONG.
        """
        return self._add(path, mask | In.IN_ONLYDIR)

    def add_file(self, path: bytes) -> int:
        """Watch the file at `path` for writes through any of its names. Raises `OSError` as `add` does."""
        return self._add(path, WRITES)

    def _add(self, path: bytes, mask: int) -> int:
        wd = inotify_add_watch(self._inotify_fd, path, Mask(mask))
        if wd == -1:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
        return wd

    def remove(self, wd: int) -> None:
        """Remove a watch; the kernel may have removed it already."""
        inotify_rm_watch(self._inotify_fd, wd)  # type: ignore[arg-type]

    def run(self) -> None:
        """Read until `shut_down()`. All exceptions are caught: without the thread no change would be noticed."""
        try:
            # An empty read means closed, or a bad descriptor: InotifyFD's own loop would repeat it for ever.
            while self.should_keep_running() and (buffer := self._read_event_buffer(BUFFER_BYTES)):
                self._deliver(self._parse_event_buffer(buffer))
                if len(buffer) < BUFFER_BYTES // 2:  # else more events are waiting, and the queue may be nearly full
                    self.stopped_event.wait(PAUSE_S)
        except Exception:
            logger.exception("the reader of file system events failed")
        if self.should_keep_running():
            self._on_death()

    def is_listening(self) -> bool:
        """True if the thread runs and its descriptor is open."""
        try:
            os.fstat(self._inotify_fd)
        except OSError:
            return False
        return self.is_alive() and not self._closed

    def shut_down(self) -> None:
        """End the thread and close the descriptors, and with them all watches. It may be called again."""
        self.stop()  # not close(): without the stop event the reader would call `on_death`
        if self.ident is not None:
            self.join(JOIN_S)
        if self._is_reading and not self.is_alive():
            # The thread never started, or died inside the read: InotifyFD left the closing to it.
            self._is_reading = False
            for fd in (self._inotify_fd, self._kill_r, self._kill_w):
                with contextlib.suppress(OSError):
                    os.close(fd)
