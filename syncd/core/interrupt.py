"""Lets a signal interrupt a blocking call, and nothing else.

Python runs signal handlers in the main thread between two bytecodes, and restarts a system call that was interrupted
unless the handler raises (PEP 475). If the handler always raised, it could interrupt the update of a state file; if it
never raised, SIGTERM would wait for a server that never answers. So it raises only while the main thread is inside a
`region`, and regions contain only waits and network calls.

A signal that arrives just before the main thread begins to wait does not interrupt that wait: the interpreter only
notes it. So a separate thread, woken by the bytes that Python writes for each signal (`signal.set_wakeup_fd`), sends
the signal again until it was handled. Where a `Stop` is lost (in a callback whose exceptions the interpreter ignores),
the next `region` raises it again.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from syncd.core.errors import Stop

_RESEND_S = 0.1


class Interrupt:
    """Stores the request to end; raises `Stop` at once if the main thread is inside a region."""

    def __init__(self) -> None:
        self.requested = False
        self._armed = False

    def request(self) -> None:
        """Request the end; called from a signal handler."""
        self.requested = True
        if self._armed:
            self._armed = False  # a second signal must not interrupt the clean-up after the first
            raise Stop

    def check(self) -> None:
        """Raise `Stop` if the end was requested; called between the steps of long work."""
        if self.requested:
            raise Stop

    @contextmanager
    def region(self) -> Iterator[None]:
        """Let `request` raise `Stop` within the context."""
        outer = self._armed
        self._armed = True  # before the check: a signal between the two would otherwise not end the wait
        try:
            self.check()
            yield
        finally:
            self._armed = outer and not self.requested


@contextmanager
def interrupting(
    interrupt: Interrupt,
    numbers: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM),
) -> Iterator[None]:
    """Let these signals interrupt waits within the context. A signal that was ignored at the start stays ignored.

    SIGHUP says that the terminal was closed; SIGALRM is the command's own timeout. Only the main thread may enter this
    context.
    """
    handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
        interrupt.request()

    done = threading.Event()
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(write_fd, False)
    resender = threading.Thread(
        target=_resend, args=(read_fd, handled, interrupt, done), name="syncd-signals", daemon=True
    )
    resender.start()
    fd_before = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    before = {number: signal.signal(number, end) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(fd_before)
        done.set()
        os.close(write_fd)
        resender.join()
        os.close(read_fd)


def _resend(read_fd: int, handled: list[signal.Signals], interrupt: Interrupt, done: threading.Event) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, handled)  # a signal that this thread received would not interrupt the main
    main = threading.main_thread().ident
    while numbers := os.read(read_fd, 64):
        if not handled or set(handled).isdisjoint(numbers):
            continue
        while not done.wait(_RESEND_S) and not interrupt.requested and main is not None:
            signal.pthread_kill(main, handled[0])
