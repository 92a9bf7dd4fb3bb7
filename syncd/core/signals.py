"""Signals: the request to end, by one or by a program, and those of `syncd run`.

A signal handler stores what is asked for, and no more, so that a signal interrupts no update of a file. Python calls it
in the main thread between two bytecodes: a signal that comes in the instant before a wait would not end that wait. But
Python also writes a byte into a pipe, at once and in whichever thread the signal comes (`signal.set_wakeup_fd`), and
each wait polls this pipe. Work that never waits calls `check` between its steps.

A wait of `syncd run` that polls no signals (for a git that does not answer) must not delay the end: after a while the
process exits without cleaning up. The daemon may be killed at any instant.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from syncd.core.errors import Stop

# At most five seconds may pass from the signal to the exit.
_EXIT_AFTER_S = 4.0


class Interrupt:
    """The request to end. Within `handling`, `descriptor` becomes readable when a signal has come."""

    def __init__(self) -> None:
        self.requested = False
        self.descriptor: int | None = None

    def request(self, *_: object) -> None:
        """Request the end; a signal handler, too."""
        self.requested = True

    def check(self) -> None:
        """Raise `Stop` if the end was requested; called between the steps of long work."""
        if self.requested:
            raise Stop

    @contextmanager
    def handling(self, handlers: Mapping[signal.Signals, Callable[..., None]]) -> Iterator[None]:
        """Have these signals handled within the context, which only the main thread may enter."""
        self.descriptor, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        writer_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(writer_before)
            os.close(writer)
            os.close(self.descriptor)
            self.descriptor = None


@contextmanager
def interrupting(interrupt: Interrupt) -> Iterator[None]:
    """Let signals end the waits of a command within the context. One that was ignored at the start stays ignored.

    SIGHUP says that the terminal was closed; SIGALRM is the command's own timeout.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    with interrupt.handling(dict.fromkeys(handled, interrupt.request)):
        yield


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
