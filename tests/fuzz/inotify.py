"""An inotify instance of a simulation, which decides when events are read."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import threading

from typing_extensions import override
from watchdog.observers.inotify_c import InotifyConstants as In

from syncd.watch.inotify_watch import BUFFER_BYTES, Event, Inotify

_INT = struct.Struct("i")


class ManualInotify(Inotify):
    """The real instance; the daemon gets only what `read_events` has taken from the kernel's queue."""

    newest: ManualInotify | None = None

    def __init__(self) -> None:
        super().__init__()
        self.watches_left: int | None = ManualInotify.newest.watches_left if ManualInotify.newest else None
        self._failed = self._shut = False
        self._taken: list[Event] = []
        self._outside: set[bytes] = set()  # the watched directories outside of the workspace
        ManualInotify.newest = self

    @override
    def filenos(self) -> list[int]:
        return []

    @override
    def close(self) -> None:
        """Close in the background: the kernel takes ten milliseconds to release watches."""
        self._shut = True
        threading.Thread(target=super().close).start()

    def is_listening(self) -> bool:
        return not self._shut and not self._failed

    @override
    def add(self, path: bytes, mask: int) -> int:
        if self.watches_left is not None and path not in self._outside:  # which needs no further watch
            self.watches_left -= 1
            if self.watches_left < 0:
                raise OSError(28, "No space left on device", path)
        wd = super().add(path, mask)
        if not path.startswith(b"/proc/self/fd/"):
            self._outside.add(path)
        return wd

    @override
    def read(self) -> list[Event]:
        if self._failed:
            raise OSError(9, "Bad file descriptor")
        taken, self._taken = self._taken, []
        return taken

    def queued_bytes(self) -> int:
        """Return the size of the events that are not yet read."""
        return int(_INT.unpack(fcntl.ioctl(self._descriptor, termios.FIONREAD, bytes(4)))[0])

    def read_events(self) -> None:
        while self.is_listening() and self.queued_bytes():
            self._taken += super().read()

    def overflow(self) -> None:
        """Drop the queued events and report an overflow, as the kernel does."""
        while self.is_listening() and self.queued_bytes():
            os.read(self._descriptor, BUFFER_BYTES)
        self._taken.append((-1, In.IN_Q_OVERFLOW, b""))

    def fail(self) -> None:
        """Let the next read fail."""
        self._failed = True
