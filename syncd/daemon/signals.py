"""What the outside asks for by signals: noted in the handler, done by the loop.

Python runs a handler in the main thread, once that comes by. Which thread the kernel interrupts is another matter: any
that does not block the signal may be, and then the main thread sleeps on; and one that comes in the instant before the
main thread begins to wait is slept through as well. So a thread of its own, woken by the bytes that Python writes for
each signal (`signal.set_wakeup_fd`), rings for the loop, and nudges the main thread until the end has been noted.

What nothing can cut short (a disk or a file system far away that does not answer) must not hold up the end either:
after a while it is made without the rest. The daemon is made to be killed at any instant.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from syncd.core.interrupt import Interrupt
from syncd.daemon.wakeup import Wakeup

_ENDS = frozenset({signal.SIGTERM, signal.SIGINT})
_NUDGE_S = 0.1
# Five seconds are promised from the signal to the exit.
_END_S = 4.0


class Signals:
    """The signals of `run`: TERM and INT end it, HUP reloads, USR1 syncs now."""

    def __init__(self, interrupt: Interrupt, wakeup: Wakeup) -> None:
        self._interrupt = interrupt
        self._wakeup = wakeup
        self._over = threading.Event()
        self.reload = False
        self.reloads_asked = 0
        self.sync_now = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within it, the handlers are ours. To be entered by the main thread."""
        before: dict[signal.Signals, Any] = {}
        handlers = {
            signal.SIGTERM: self._end,
            signal.SIGINT: self._end,
            signal.SIGHUP: self._reload,
            signal.SIGUSR1: self._sync_now,
        }
        heard, hears = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(hears, False)
        signal_thread = threading.Thread(
            target=self._run_signal_thread, args=(heard, list(handlers)), name="syncd-signals", daemon=True
        )
        signal_thread.start()
        fd_before = signal.set_wakeup_fd(hears, warn_on_full_buffer=False)
        try:
            for number, handler in handlers.items():
                before[number] = signal.signal(number, handler)
            yield
        finally:
            for number, handler in before.items():
                # Another SIGTERM while the process exits must not turn its end into an error.
                is_over = number in _ENDS and self._interrupt.requested
                signal.signal(number, signal.SIG_IGN if is_over else handler)
            signal.set_wakeup_fd(fd_before)
            self._over.set()
            os.close(hears)
            signal_thread.join()
            os.close(heard)

    def _run_signal_thread(self, heard: int, ours: list[signal.Signals]) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ours)  # what is delivered here interrupts nothing there
        while numbers := os.read(heard, 64):
            self._wakeup.ring()
            if not _ENDS.isdisjoint(numbers):
                self._see_it_end()

    def _see_it_end(self) -> None:
        main = threading.main_thread().ident
        for _ in range(int(_END_S / _NUDGE_S)):
            if main is not None and not self._interrupt.requested:
                signal.pthread_kill(main, signal.SIGTERM)
            if self._over.wait(_NUDGE_S):
                return
        os._exit(0)

    def _end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's signature
        self._wakeup.ring()
        self._interrupt.request()

    def _reload(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.reload = True
        self.reloads_asked += 1
        self._wakeup.ring()

    def _sync_now(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.sync_now = True
        self._wakeup.ring()
