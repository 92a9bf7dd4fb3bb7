"""An inotify instance: its descriptor, its watches and its events (inotify(7)).

watchdog's observer watches whole trees and cannot exclude a part, and its `InotifyFD` has a thread. So only its calls
of the C library and its constants are used here. The watch itself maps watch descriptors to paths, which saves two
thirds of the memory and most of the time for each event.
"""

from __future__ import annotations

import ctypes
import os
import struct

from watchdog.observers import inotify_c
from watchdog.observers.inotify_c import InotifyConstants as In

Event = tuple[int, int, bytes]
"""Watch descriptor (-1: the queue itself), mask, name ("" for the directory itself)."""

CHANGES = (
    In.IN_CREATE
    | In.IN_DELETE
    | In.IN_MODIFY
    | In.IN_ATTRIB
    | In.IN_MOVED_FROM
    | In.IN_MOVED_TO
    # A write through mmap causes no IN_MODIFY, but IN_CLOSE_WRITE when the last writable descriptor or mapping ends.
    | In.IN_CLOSE_WRITE
    # Not through a name that was removed: programs that write to such files would cause scans without end. Where the
    # file has another name, the rescan finds the change.
    | In.IN_EXCL_UNLINK
)
"""Without IN_OPEN, IN_ACCESS and IN_CLOSE_NOWRITE: the daemon's own reading must not start a sync."""
SELF = In.IN_DELETE_SELF | In.IN_MOVE_SELF
"""Only for the workspace: for every other directory the parent's watch reports this."""
ENTRIES = In.IN_CREATE | In.IN_DELETE | In.IN_MOVED_FROM | In.IN_MOVED_TO
"""For the directory that holds the workspace."""
RULES = ENTRIES | In.IN_CLOSE_WRITE | In.IN_ATTRIB | In.IN_MASK_ADD
"""For a directory with rules outside of the workspace; added to the events that it is already watched for."""
REMOVED = SELF | In.IN_UNMOUNT | In.IN_IGNORED

# Holds the kernel's queue of 16,384 events, if their names are of ordinary length.
BUFFER_BYTES = 1 << 20
_HEADER = struct.Struct("iIII")  # watch descriptor, mask, cookie, length of the name


class Inotify:
    """An inotify instance. Raises `OSError` (EMFILE: the user's instances, or the process's descriptors, are used up).

    Its descriptor becomes readable when there are events.
    """

    def __init__(self) -> None:
        self._descriptor = _checked(inotify_c.inotify_init())
        os.set_inheritable(self._descriptor, False)
        os.set_blocking(self._descriptor, False)

    def filenos(self) -> list[int]:
        """Return the descriptors to poll."""
        return [self._descriptor]

    def add(self, path: bytes, mask: int) -> int:
        """Watch the directory at `path` (again) for `mask`; the watch descriptor is the same for the same inode.

        Raises `OSError`: ENOSPC (limit of watches), EACCES (unreadable), ENOENT, ENOTDIR, ENAMETOOLONG.
        """
        return _checked(inotify_c.inotify_add_watch(self._descriptor, path, inotify_c.Mask(mask | In.IN_ONLYDIR)))

    def remove(self, wd: int) -> None:
        """Remove a watch; the kernel may have removed it already."""
        inotify_c.inotify_rm_watch(self._descriptor, inotify_c.WatchDescriptor(wd))

    def read(self) -> list[Event]:
        """Return the events that the kernel has queued, as many as the buffer holds. Raises `OSError`."""
        try:
            buffer = os.read(self._descriptor, BUFFER_BYTES)
        except BlockingIOError:
            return []
        events: list[Event] = []
        at = 0
        while at < len(buffer):
            wd, mask, _, length = _HEADER.unpack_from(buffer, at)
            at += _HEADER.size + length
            events.append((wd, mask, buffer[at - length : at].rstrip(b"\0")))
        return events

    def close(self) -> None:
        """Close the descriptor, and with it all watches."""
        os.close(self._descriptor)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
