"""The signals of the daemon: each is noted in its handler and handled by the loop.

Python runs a handler in the main thread, between two instructions. The kernel may interrupt any thread that does not
block the signal, and then the main thread sleeps on; a signal that comes in the instant before the main thread begins
to wait does not wake it either. So a thread of its own reads the bytes that Python writes for each signal
(`signal.set_wakeup_fd`), wakes the loop, and signals the main thread again until it has noted the end.

A wait that nothing can interrupt (a disk or a remote file system that does not answer) must not delay the end: after a
while the process exits without cleaning up. The daemon may be killed at any instant.
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
_SIGNAL_AGAIN_S = 0.1
# At most five seconds may pass from the signal to the exit.
_EXIT_AFTER_S = 4.0


class Signals:
    """The signals of `run`: TERM and INT end it, HUP reloads, USR1 syncs now."""

    def __init__(self, interrupt: Interrupt, wakeup: Wakeup) -> None:
        self._interrupt = interrupt
        self._wakeup = wakeup
        self._over = threading.Event()
        self.reload = False
        self.reloads = 0
        self.sync_now = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Install the handlers for the block, which the main thread must enter."""
        before: dict[signal.Signals, Any] = {}
        handlers = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGHUP: self._reload,
            signal.SIGUSR1: self._sync_now,
        }
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(writer, False)
        signal_thread = threading.Thread(
            target=self._run_signal_thread, args=(reader, list(handlers)), name="syncd-signals", daemon=True
        )
        signal_thread.start()
        fd_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
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
            os.close(writer)
            signal_thread.join()
            os.close(reader)

    def _run_signal_thread(self, reader: int, handled: list[signal.Signals]) -> None:
        signal.pthread_sigmask(
            signal.SIG_BLOCK, handled
        )  # delivered to this thread, it would not interrupt the main one
        while numbers := os.read(reader, 64):
            self._wakeup.wake()
            if not _ENDS.isdisjoint(numbers):
                self._await_end()

    def _await_end(self) -> None:
        main = threading.main_thread().ident
        for _ in range(int(_EXIT_AFTER_S / _SIGNAL_AGAIN_S)):
            if main is not None and not self._interrupt.requested:
                signal.pthread_kill(main, signal.SIGTERM)
            if self._over.wait(_SIGNAL_AGAIN_S):
                return
        os._exit(0)

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's signature
        self._wakeup.wake()
        self._interrupt.request()

    def _reload(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.reload = True
        self.reloads += 1
        self._wakeup.wake()

    def _sync_now(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.sync_now = True
        self._wakeup.wake()
