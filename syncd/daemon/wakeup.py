"""Wakes the loop by a byte in a pipe, which a signal handler or another thread may write at any moment.

`Event.set()` and `Queue.put()` take locks, and a signal handler that waits for a lock of its own thread never returns.
Writing to a pipe takes none.
"""

from __future__ import annotations

import contextlib
import os


class Wakeup:
    """The self-pipe of a loop that waits for `fileno()`."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def wake(self) -> None:
        """Wake the loop. A full pipe wakes it already, and the loop of a closed one has ended."""
        with contextlib.suppress(OSError):
            os.write(self._write, b"!")

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._read

    def drain(self) -> None:
        """Empty the pipe, to be called before the events are taken."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._read)
        os.close(self._write)
