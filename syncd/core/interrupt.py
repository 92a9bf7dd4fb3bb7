"""How a signal cuts short the blocking call that is under way, and nothing else.

Python runs signal handlers in the main thread between two bytecodes, and restarts a system call that was interrupted
unless the handler raises (PEP 475). Raising anywhere could tear a state file's update apart; never raising would leave
SIGTERM waiting for a server that never answers. So the handler raises only while the main thread is inside a `region`,
which wraps waits and network calls alone.

One that comes in the instant before the main thread begins to wait is noted by the interpreter, and the wait begins all
the same. So a thread of its own, woken by the bytes that Python writes for each signal (`signal.set_wakeup_fd`), sends
it again until it was heard. And where a `Stop` is lost (in a callback of which the interpreter ignores what it raises),
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

_SEND_AGAIN_S = 0.1


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


@contextmanager
def interrupting(
    interrupt: Interrupt, numbers: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
) -> Iterator[None]:
    """Within it, these signals end what is waited for. One that the process was started to ignore stays ignored.

    SIGALRM is a command's own: its time is over. To be entered by the main thread.
    """
    ours = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
        interrupt.request()

    over = threading.Event()
    heard, hears = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(hears, False)
    again = threading.Thread(target=_send_again, args=(heard, ours, interrupt, over), name="syncd-signals", daemon=True)
    again.start()
    fd_before = signal.set_wakeup_fd(hears, warn_on_full_buffer=False)
    before = {number: signal.signal(number, end) for number in ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(fd_before)
        over.set()
        os.close(hears)
        again.join()
        os.close(heard)


def _send_again(heard: int, ours: list[signal.Signals], interrupt: Interrupt, over: threading.Event) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, ours)  # what is delivered here interrupts nothing there
    main = threading.main_thread().ident
    while numbers := os.read(heard, 64):
        if not ours or set(ours).isdisjoint(numbers):
            continue
        while not over.wait(_SEND_AGAIN_S) and not interrupt.requested and main is not None:
            signal.pthread_kill(main, ours[0])
