"""The one place where a process waits: for a time, or for a connection, and for whatever else may come meanwhile.

A wait that only knows its own end makes a daemon deaf: a command, a change and the service manager's watchdog would
stand in line behind a server that hangs. So each wait here also watches the alarms of a `Listener`, and what has come
is heard at once. Hearing only notes and answers; whether the work at hand ends for it is what the work itself says
beforehand, by `giving_way`.

A signal cuts short nothing but the wait itself (see `syncd.core.interrupt`), so no state is torn by one.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from math import inf
from typing import Protocol

from syncd.core.clock import Clock, SystemClock
from syncd.core.interrupt import Interrupt

# Work that never waits hears this often, and so often is told how far an upload has come.
POLL_EVERY_S = 0.2
# Less than this is no time to wait for: what floating point leaves over.
_NO_TIME_S = 1e-6
# A connection is another machine's, which no test's clock can hurry.
_REAL = SystemClock()


class Superseded(Exception):
    """Something newer came up while this was waited for: a fresh snapshot is worth more than the end of this one."""


class GivesWay(Enum):
    """What work is given up for, while it waits."""

    NEVER = "what was begun must come to its end: an initialize, a removal"
    TO_A_FRESH_START = "a sleep of the machine, or another configuration: an upload"
    TO_ANYTHING_NEWER = "a change that is due, an order, a pause or a reload: what only looks"


class Listener(Protocol):
    """Who hears. All seconds are of the waiter's clock, monotonic."""

    def wake_fds(self) -> Sequence[tuple[int, int]]:
        """Descriptors, each with the events of poll(2) that tell of something to hear."""

    def due_s(self) -> float | None:
        """When `hear` is to be called if nothing comes; None: then never."""

    def hear(self, ready: Collection[int]) -> None:
        """Note and answer what has come; `ready` are the descriptors that told of it. Begins no work."""

    def newer_s(self, gives_way: GivesWay) -> float | None:
        """When there is something newer that such work gives way to, past or ahead; None: nothing is known of."""


class Waiter:
    """Waits for one thread."""

    def __init__(self, interrupt: Interrupt, clock: Clock) -> None:
        self.interrupt = interrupt
        self.clock = clock
        self.listener: Listener | None = None
        self._gives_way = GivesWay.NEVER
        self._tell: Callable[[], None] | None = None
        self._polled_at_s = -inf

    @contextmanager
    def giving_way(self, gives_way: GivesWay) -> Iterator[None]:
        """Within it, waits raise `Superseded` once there is something newer that such work gives way to."""
        outer, self._gives_way = self._gives_way, gives_way
        try:
            yield
        finally:
            self._gives_way = outer

    @contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """Within it, `tell` is called every `POLL_EVERY_S` seconds, whatever is waited for."""
        outer, self._tell = self._tell, tell
        try:
            yield
        finally:
            self._tell = outer

    def once(self, until_s: float | None) -> None:
        """Wait until then or until something has come, and hear it. None: until something comes. Raises `Stop`."""
        self._hear(self._poll(self.clock, [] if until_s is None else [until_s - self.clock.monotonic_s()]))

    def sleep(self, seconds: float) -> None:
        """Let so much time pass, and hear what comes meanwhile. Raises `Stop`, `Superseded`."""
        ends_s = self.clock.monotonic_s() + seconds
        newer = self._newer_in_s()
        while (left_s := ends_s - self.clock.monotonic_s()) > _NO_TIME_S:
            self._hear(self._poll(self.clock, [left_s, *newer]))
            newer = self._newer_in_s()

    def ready(self, descriptor: int, events: int, ends_s: float) -> bool:
        """Whether these events of poll(2) came before that second of the machine's monotonic clock.

        What else comes is heard meanwhile. Raises `Stop`, `Superseded`.
        """
        newer = self._newer_in_s()
        while True:
            left_s = ends_s - _REAL.monotonic_s()
            found = self._poll(_REAL, [left_s, *newer], (descriptor, events))
            if descriptor in found:
                self.poll_events()
                return True
            self._hear(found)
            newer = self._newer_in_s()
            if left_s <= 0:
                return False

    def poll_events(self) -> None:
        """Hear, if nothing was heard for a moment: for work that never waits. Raises `Stop`, `Superseded`."""
        self.interrupt.check()
        if _REAL.monotonic_s() - self._polled_at_s >= POLL_EVERY_S:
            self._hear(self._poll(_REAL, [0.0]) if self.listener is not None else ())
            self._newer_in_s()

    def _poll(self, clock: Clock, within_s: Sequence[float], watched: tuple[int, int] | None = None) -> set[int]:
        """The descriptors that are ready, after the least of these times at the latest."""
        poll = select.poll()
        ends = list(within_s)
        if watched is not None:
            poll.register(*watched)
        if self.listener is not None:
            for descriptor, events in self.listener.wake_fds():
                poll.register(descriptor, events)
            due_s = self.listener.due_s()
            if due_s is not None:
                ends.append(due_s - self.clock.monotonic_s())
        if self._tell is not None:
            ends.append(self._polled_at_s + POLL_EVERY_S - _REAL.monotonic_s())
        with self.interrupt.region():
            found = clock.poll(poll, max(0.0, min(ends)) if ends else None)
        self.interrupt.check()
        return {descriptor for descriptor, _ in found}

    def _hear(self, ready: Collection[int]) -> None:
        self._polled_at_s = _REAL.monotonic_s()
        if self.listener is not None:
            self.listener.hear(ready)
        self.interrupt.check()
        if self._tell is not None:
            self._tell()

    def _newer_in_s(self) -> list[float]:
        """In how many seconds the work at hand gives way, if that is known. Raises `Superseded` if it is now."""
        if self.listener is None or self._gives_way is GivesWay.NEVER:
            return []
        newer_s = self.listener.newer_s(self._gives_way)
        if newer_s is None:
            return []
        left_s = newer_s - self.clock.monotonic_s()
        if left_s <= 0:
            raise Superseded
        return [left_s]
