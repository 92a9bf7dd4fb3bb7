"""The kernel's border of the watch: watchdog's inotify thread, driven directly.

watchdog's observer watches whole trees and cannot leave any out; its `InotifyFD` takes one directory at a time. Only
its descriptor, its thread and its parsing are used here: book-keeping is the watch's, which saves two thirds of the
memory and most of the time an event takes. `InotifyFD` is an internal of watchdog, so `watchdog~=7.1.0` is pinned,
what is relied on has tests of its own, and importing this module fails where it is missing.

Outside facts: inotify(7), inotify_add_watch(2).
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

_RELIED_ON = ("_create_inotify_fd", "_read_event_buffer", "_parse_event_buffer", "stop", "stopped_event")
for _name in _RELIED_ON:
    if not hasattr(InotifyFD, _name):
        raise ImportError(f"watchdog's InotifyFD has no {_name}")

Event = tuple[int, int, int, bytes]
"""Watch descriptor (-1: of no watch), mask, cookie, name ("" for the directory itself)."""

CHANGES = (
    In.IN_CREATE
    | In.IN_DELETE
    | In.IN_MODIFY
    | In.IN_ATTRIB
    | In.IN_MOVED_FROM
    | In.IN_MOVED_TO
    # A write through mmap never is IN_MODIFY: it shows when the last writable descriptor or mapping goes.
    | In.IN_CLOSE_WRITE
)
"""Never IN_OPEN, IN_ACCESS or IN_CLOSE_NOWRITE: the daemon's own reading must start nothing."""
WRITES = In.IN_MODIFY | In.IN_ATTRIB | In.IN_CLOSE_WRITE
"""For a file that has other names. By name they may come after that name is gone: a log that was given another name by
`ln` and `rm` is written on through the old one, one made by O_TMPFILE through "#" and its inode number. IN_EXCL_UNLINK
would keep all of these back."""
SELF = In.IN_DELETE_SELF | In.IN_MOVE_SELF
"""For the workspace alone: of every other directory its parent's watch tells."""
NEIGHBOURS = In.IN_CREATE | In.IN_DELETE | In.IN_MOVED_FROM | In.IN_MOVED_TO
"""For the directory that the workspace is in."""
RULES = NEIGHBOURS | In.IN_CLOSE_WRITE | In.IN_ATTRIB | In.IN_MASK_ADD
"""For a directory that holds rules from outside of the workspace: added to what it is watched for already."""
GONE = SELF | In.IN_UNMOUNT | In.IN_IGNORED

PAUSE_S = 0.01
"""After a read, let more come: a burst costs a third. The kernel's queue holds 16,384 events; 20 ms did overflow it."""
JOIN_S = 2.0
BUFFER_BYTES = 256 * 1024


class Inotify(InotifyFD):
    """One inotify instance and the thread that reads it.

    `deliver` gets the events of each read, in the reader's thread; `lost` is called there if it ends unasked.
    Errors: `OSError` from the constructor (EMFILE: the user's instances, or the process's descriptors, are used up).
    """

    def __init__(self, deliver: Callable[[Iterable[Event]], None], lost: Callable[[], None]) -> None:
        try:
            super().__init__()
        except OSError:
            # Its pipe failed after its descriptor was made; nobody else can close that.
            if (fd := getattr(self, "_inotify_fd", -1)) >= 0:
                os.close(fd)
            raise
        self.name = "syncd-watch"
        self._deliver = deliver
        self._lost = lost

    @classmethod
    def _create_inotify_fd(cls) -> int:
        fd = super()._create_inotify_fd()
        if fd == -1:  # InotifyFD passes EACCES over in silence
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        os.set_inheritable(fd, False)
        return fd

    def add(self, path: bytes, mask: int) -> int:
        """Watches the directory at `path` (again) for `mask`; the descriptor is the same for the same inode.

        Errors: `OSError`: ENOSPC (limit of watches), EACCES (unreadable), ENOENT, ENOTDIR, ENAMETOOLONG.
        """
        return self._add(path, mask | In.IN_ONLYDIR)

    def add_file(self, path: bytes) -> int:
        """Watches the file at `path` for writes, by whatever name. Errors as of `add`."""
        return self._add(path, WRITES)

    def _add(self, path: bytes, mask: int) -> int:
        wd = inotify_add_watch(self._inotify_fd, path, Mask(mask))
        if wd == -1:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
        return wd

    def remove(self, wd: int) -> None:
        """Forgets a watch; no matter if the kernel did so already."""
        inotify_rm_watch(self._inotify_fd, wd)  # type: ignore[arg-type]

    def run(self) -> None:
        """Reads until `shut()`. No exception leaves it: a thread that dies in silence is a deaf daemon."""
        try:
            # Nothing read means closed, or a bad descriptor: InotifyFD's own loop would spin on it.
            while self.should_keep_running() and (buffer := self._read_event_buffer(BUFFER_BYTES)):
                self._deliver(self._parse_event_buffer(buffer))
                if len(buffer) < BUFFER_BYTES // 2:  # else more is waiting, and the queue may be near its end
                    self.stopped_event.wait(PAUSE_S)
        except Exception:
            logger.exception("the reader of file system events failed")
        if self.should_keep_running():
            self._lost()

    def hears(self) -> bool:
        """Whether the thread lives and its descriptor is open."""
        try:
            os.fstat(self._inotify_fd)
        except OSError:
            return False
        return self.is_alive() and not self._closed

    def shut(self) -> None:
        """Ends the thread and closes the descriptors, and with them all watches. May be called again."""
        self.stop()  # not close(): without the stop event the reader would take it for a loss
        if self.ident is not None:
            self.join(JOIN_S)
        if self._is_reading and not self.is_alive():
            # Never started, or died inside the read: InotifyFD left closing to a thread that is not there.
            self._is_reading = False
            for fd in (self._inotify_fd, self._kill_r, self._kill_w):
                with contextlib.suppress(OSError):
                    os.close(fd)
