"""The request to end, by a signal or by a program.

A signal handler stores what is asked for, and no more, so that a signal interrupts no update of a file. Python calls it
in the main thread between two bytecodes: a signal that comes in the instant before a wait would not end that wait. But
Python also writes a byte into a pipe, at once and in whichever thread the signal comes (`signal.set_wakeup_fd`), and
each wait polls this pipe. Work that never waits calls `check` between its steps.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from syncd.core.errors import Stop


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
