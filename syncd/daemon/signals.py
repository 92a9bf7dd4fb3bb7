"""The signals of `run`, which its loop takes note of at the next wait; see `core.waiter`.

A wait that polls no signals (for a git that does not answer) must not delay the end: after a while the process exits
without cleaning up. The daemon may be killed at any instant.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from syncd.core.interrupt import Interrupt

# At most five seconds may pass from the signal to the exit.
_EXIT_AFTER_S = 4.0


class Signals:
    """The signals of `run`: TERM and INT end it, HUP reloads, USR1 syncs now."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._over = threading.Event()
        self.reload = False
        self.sync_now = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Install the handlers for the block, which the main thread must enter."""
        handlers = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGHUP: self.reload_now,
            signal.SIGUSR1: self._sync_now,
        }
        with self._interrupt.handling(handlers):
            try:
                yield
            finally:
                self._over.set()

    def _stop(self, *_: object) -> None:
        if not self._interrupt.requested:
            self._interrupt.request()
            with contextlib.suppress(RuntimeError):  # no more threads are allowed
                # Not a `threading.Thread`: it takes locks, which the code that the signal interrupted may hold.
                _thread.start_new_thread(self._exit_late, ())

    def _exit_late(self) -> None:
        if not self._over.wait(_EXIT_AFTER_S):
            os._exit(0)

    def reload_now(self, *_: object) -> None:
        """Have the configuration read anew, as a SIGHUP does."""
        self.reload = True

    def _sync_now(self, *_: object) -> None:
        self.sync_now = True
