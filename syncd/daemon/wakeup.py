"""The loop's one alarm: a byte in a pipe, which a signal handler or another thread may put there at any moment.

`Event.set()` and `Queue.put()` take locks, and a signal handler that wants a lock its own thread holds never returns.
Writing to a pipe takes none.
"""

from __future__ import annotations

import contextlib
import os


class Wakeup:
    """Rings through a self-pipe; `select` on `fileno()`."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def ring(self) -> None:
        """Wake the loop. A full pipe has rung already, a closed one has nobody to wake."""
        with contextlib.suppress(OSError):
            os.write(self._write, b"!")

    def fileno(self) -> int:
        """For `select`."""
        return self._read

    def drain(self) -> None:
        """Silence the alarm, before what it rang for is looked at."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._read)
        os.close(self._write)
