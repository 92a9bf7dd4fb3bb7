"""What the outside asks for by signals: noted in the handler, done by the loop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from syncd.base.interrupt import Interrupt
from syncd.process.wakeup import Wakeup


class Signals:
    """The signals of `run`: TERM and INT end it, HUP reloads, USR1 syncs now."""

    def __init__(self, interrupt: Interrupt, wakeup: Wakeup) -> None:
        self._interrupt = interrupt
        self._wakeup = wakeup
        self.reload = False
        self.sync_now = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within it, the handlers are ours."""
        before: dict[signal.Signals, Any] = {}
        handlers = {
            signal.SIGTERM: self._end,
            signal.SIGINT: self._end,
            signal.SIGHUP: self._reload,
            signal.SIGUSR1: self._sync_now,
        }
        try:
            for number, handler in handlers.items():
                before[number] = signal.signal(number, handler)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's signature
        self._wakeup.ring()
        self._interrupt.request()

    def _reload(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.reload = True
        self._wakeup.ring()

    def _sync_now(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.sync_now = True
        self._wakeup.ring()
