"""How a signal cuts short the blocking call that is under way, and nothing else.

Python runs signal handlers in the main thread between two bytecodes, and restarts a system call that was interrupted
unless the handler raises (PEP 475). Raising anywhere could tear a state file's update apart; never raising would leave
SIGTERM waiting for a server that never answers. So the handler raises only while the main thread is inside a `region`,
which wraps waits and network calls alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from syncd.base.errors import Stop


class Interrupt:
    """Remembers that the process should end; raises `Stop` at once if a region is being waited in."""

    def __init__(self) -> None:
        self.requested = False
        self._armed = False

    def request(self) -> None:
        """Called from a signal handler."""
        self.requested = True
        if self._armed:
            self._armed = False  # a second signal must not tear the clean-up after the first
            raise Stop

    def check(self) -> None:
        """Raise `Stop` if the end was asked for; called between two pieces of long work."""
        if self.requested:
            raise Stop

    @contextmanager
    def region(self) -> Iterator[None]:
        """Within it, `request` raises `Stop`."""
        outer = self._armed
        self._armed = True  # before the check: a signal between the two would otherwise be slept through
        try:
            self.check()
            yield
        finally:
            self._armed = outer and not self.requested
