"""The waits of one piece of work: for a time or for a connection, and for events that end it meanwhile.

If a wait ended only for its own reason, a daemon could not react: a command, a change and the service manager's
watchdog would have to wait for a server that hangs. So each wait is one of the process's (`core.tasks`), which handles
events at once. Handling only records events and answers requests. Work that events may end says so beforehand, with
`superseded_by`. Each wait polls for signals, too (see `syncd.core.interrupt`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from math import inf
from typing import Protocol

from syncd.core.clock import Clock
from syncd.core.interrupt import Interrupt
from syncd.core.tasks import REAL, Tasks

# Work that never waits handles events this often, and the progress of an upload is reported this often.
POLL_EVERY_S = 0.2
# Shorter waits are rounding errors of floating point.
_ROUNDING_S = 1e-6


class Superseded(Exception):
    """Newer events ended the wait: a fresh snapshot is worth more than finishing this one."""


class TimeIsUp(Exception):
    """The time that some work had is over; see `Waiter.within`."""


class SupersededBy(Enum):
    """The events that end the work that waits."""

    NOTHING = "work that must be completed: an initialize, a removal"
    FRESH_START = "a suspend of the machine, or another configuration: these end an upload"
    LAST_SAVE = "the save of the agent's work before its sandbox ends: it ends a look of a sync"
    ANY_CHANGE = "a change that is due, a request, a pause or a reload: these end work that only reads"


class Worker(Protocol):
    """Says what ends the work that waits. All times are seconds of the waiter's monotonic clock."""

    def deadline_s(self) -> float | None:
        """Return the time at which `note_time` is called even without an event; None: no such time."""

    def note_time(self) -> None:
        """Note what is due by now. Begins no work."""

    def superseded_at_s(self, superseded_by: SupersededBy) -> float | None:
        """Return the time, past or future, at which newer events end such work; None: no such event is known."""


class Waiter:
    """Waits for one piece of work; `tasks` has those of the process, where there are several."""

    def __init__(self, interrupt: Interrupt, clock: Clock, tasks: Tasks | None = None) -> None:
        self.interrupt = interrupt
        self.clock = clock
        self.tasks = tasks or Tasks(interrupt, clock)
        self.worker: Worker | None = None
        self._superseded_by = SupersededBy.NOTHING
        self._report: Callable[[], None] | None = None
        self._polled_at_s = -inf
        self._ends = (inf, inf)  # by the clock, and by the machine's

    @contextmanager
    def superseded_by(self, superseded_by: SupersededBy) -> Iterator[None]:
        """Let waits within the context raise `Superseded` once such an event has come."""
        outer, self._superseded_by = self._superseded_by, superseded_by
        try:
            yield
        finally:
            self._superseded_by = outer

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Let waits within the context, and `poll_events`, raise `TimeIsUp` after so many seconds in all.

        It ends what no time-out of a single wait does: an answer that comes byte by byte, one request after the other.
        """
        outer = self._ends
        self._ends = (
            min(outer[0], self.clock.monotonic_s() + seconds),
            min(outer[1], REAL.monotonic_s() + seconds),
        )
        try:
            yield
        finally:
            self._ends = outer

    @contextmanager
    def reporting(self, report: Callable[[], None]) -> Iterator[None]:
        """Call `report` every `POLL_EVERY_S` seconds within the context, whatever the wait is for."""
        outer, self._report = self._report, report
        try:
            yield
        finally:
            self._report = outer

    def wait(self, until_s: float | None) -> None:
        """Wait for one event, at most until that time (None: no limit), and handle it. Raises `Stop`."""
        self._wait(self.clock, [] if until_s is None else [until_s - self.clock.monotonic_s()])

    def sleep(self, seconds: float) -> None:
        """Wait so long, and handle events meanwhile. Raises `Stop`, `Superseded`, `TimeIsUp`."""
        ends_s = self.clock.monotonic_s() + seconds
        ended_in_s = self._ended_in_s()
        while (left_s := ends_s - self.clock.monotonic_s()) > _ROUNDING_S:
            self._wait(self.clock, [left_s, *ended_in_s])
            ended_in_s = self._ended_in_s()

    def wait_ready(self, descriptor: int, events: int, ends_s: float) -> bool:
        """True if the descriptor has these events of poll(2) before that second of the machine's monotonic clock.

        Other events are handled meanwhile. Raises `Stop`, `Superseded`, `TimeIsUp`.
        """
        ended_in_s = self._ended_in_s()
        while True:
            left_s = ends_s - REAL.monotonic_s()
            if self._wait(REAL, [left_s, *ended_in_s], (descriptor, events)):
                return True
            ended_in_s = self._ended_in_s()
            if left_s <= 0:
                return False

    def poll_events(self) -> None:
        """Handle events, and let other tasks go on, at most every `POLL_EVERY_S`: for work that never waits.

        Raises `Stop`, `Superseded`, `TimeIsUp`.
        """
        self.interrupt.check()
        if self.worker is not None and REAL.monotonic_s() - self._polled_at_s >= POLL_EVERY_S:
            self._wait(REAL, [0.0])
            self._ended_in_s()

    def _wait(self, clock: Clock, within_s: Sequence[float], watched: tuple[int, int] | None = None) -> bool:
        """Wait for the shortest of these times at most; true if the watched descriptor is ready."""
        ends = [*within_s]
        if self.worker is not None:
            deadline_s = self.worker.deadline_s()
            if deadline_s is not None:
                ends.append(deadline_s - self.clock.monotonic_s())
        if self._report is not None:
            ends.append(self._polled_at_s + POLL_EVERY_S - REAL.monotonic_s())
        ready = self.tasks.wait(clock, max(0.0, min(ends)) if ends else None, watched)
        self._polled_at_s = REAL.monotonic_s()
        if self.worker is not None:
            self.worker.note_time()
        self.interrupt.check()
        if self._report is not None:
            self._report()
        return bool(ready)

    def _ended_in_s(self) -> list[float]:
        """Return the seconds until newer events end the work, if known, and until its time is over.

        Raises `Superseded` or `TimeIsUp` if they have passed.
        """
        left_s = min(self._ends[0] - self.clock.monotonic_s(), self._ends[1] - REAL.monotonic_s())
        if left_s <= 0:
            raise TimeIsUp
        ended_in_s = [left_s] if left_s < inf else []
        if self.worker is None or self._superseded_by is SupersededBy.NOTHING:
            return ended_in_s
        at_s = self.worker.superseded_at_s(self._superseded_by)
        if at_s is None:
            return ended_in_s
        superseded_in_s = at_s - self.clock.monotonic_s()  # a time of now is over: it is told once
        if superseded_in_s <= 0:
            raise Superseded
        return [*ended_in_s, superseded_in_s]
