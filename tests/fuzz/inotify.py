"""An inotify reader without a thread: the simulation decides when events are read."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import threading
from collections.abc import Callable

from watchdog.observers.inotify_c import InotifyConstants as In

from syncd.watch.inotify import BUFFER_BYTES, Inotify

_INT = struct.Struct("i")


class ManualInotify(Inotify):
    """The real reader without its thread: `read_events` delivers what the kernel has queued."""

    newest: ManualInotify | None = None

    def __init__(self, deliver: Callable[..., None], lost: Callable[[], None]) -> None:
        super().__init__(deliver, lost)
        self.watches_left: int | None = ManualInotify.newest.watches_left if ManualInotify.newest else None
        self._failed = self._shut = False
        ManualInotify.newest = self

    def start(self) -> None:
        """Start no thread."""

    def shut_down(self) -> None:
        """Close in the background: the kernel takes ten milliseconds to release watches."""
        if not self._shut:
            self._shut = True
            threading.Thread(target=super().shut_down).start()

    def is_listening(self) -> bool:
        return not self._shut and not self._failed and not self._closed

    def add(self, path: bytes, mask: int) -> int:
        if self.watches_left is not None:
            self.watches_left -= 1
            if self.watches_left < 0:
                raise OSError(28, "No space left on device", path)
        return super().add(path, mask)

    def queued_bytes(self) -> int:
        """Return the size of the events that are not yet read."""
        return int(_INT.unpack(fcntl.ioctl(self._inotify_fd, termios.FIONREAD, bytes(4)))[0])

    def read_events(self) -> None:
        while self.is_listening() and self.queued_bytes():
            self._deliver(self._parse_event_buffer(os.read(self._inotify_fd, BUFFER_BYTES)))

    def overflow(self) -> None:
        """Drop the queued events and report an overflow, as the kernel does."""
        while self.is_listening() and self.queued_bytes():
            os.read(self._inotify_fd, BUFFER_BYTES)
        self._deliver([(-1, In.IN_Q_OVERFLOW, 0, b"")])

    def fail(self) -> None:
        """Report that the watch is lost."""
        self._failed = True
        self._on_death()
