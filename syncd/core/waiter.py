"""The waits of the process: for a time, for a connection, or for a signal, and for events that end them meanwhile.

If a wait ended only for its own reason, a daemon could not react: a command, a change and the service manager's
watchdog would have to wait for a server that hangs. So each wait handles the process's events at once, and handling
only records events and answers requests. Work that newer events may end says of which kind it is, with `doing`.

Several pieces of work run in one thread: where one waits, the others go on. Each task is ordinary code with a stack of
its own (a greenlet). A wait says what it waits for, and returns when that has come; whichever task waits last polls for
all of them. Between two of its waits a task is alone, so no other sees what it has half done; within `alone` it stays
so while it waits.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import Enum
from functools import partial
from math import inf
from typing import Any, Protocol

from greenlet import getcurrent, greenlet
from msgspec import Struct
from msgspec.structs import replace

from syncd.core.clock import Clock, SystemClock
from syncd.core.errors import Stop
from syncd.core.signals import Interrupt

# Work that never waits handles events this often, and the progress of an upload is reported this often.
POLL_EVERY_S = 0.2
# Shorter times are rounding errors of floating point.
_ROUNDING_S = 1e-6
# A connection depends on another machine, which a test's clock cannot speed up.
REAL = SystemClock()


class ProcessEvents(Protocol):
    """The events that a process hears while its tasks wait. Times are seconds of the monotonic clock."""

    def wake_fds(self) -> list[tuple[int, int]]:
        """Return the descriptors to poll, each with its events of poll(2)."""

    def deadline_s(self) -> float:
        """Return the time at which `handle` is called even without an event; infinity: no such time."""

    def handle(self, ready: set[int]) -> bool:
        """Record events of these descriptors, answer requests, begin no work; true if the tasks have to look."""


class _Wait(Struct):
    """A task's wait for a second of its clock (infinity: for none), or for a descriptor's events of poll(2)."""

    clock: Clock
    due_s: float
    watched: tuple[int, int] | None = None
    is_over: bool = False
    is_ready: bool = False  # the descriptor is


class Tasks:
    """The tasks of one thread. Code that is no task may wait too, as a command's does."""

    def __init__(self, interrupt: Interrupt, clock: Clock) -> None:
        self._interrupt = interrupt
        self._clock = clock
        self.events: ProcessEvents | None = None
        self._waits: dict[greenlet, _Wait] = {}
        self._main = getcurrent()
        self._alone: greenlet | None = None
        self._tasks: set[greenlet] = set()
        self._failure: BaseException | None = None

    def run(
        self,
        works: Iterable[Callable[[], object]],
        events: ProcessEvents | None = None,
        beside: Iterable[Callable[[], object]] = (),
    ) -> None:
        """Carry out these pieces of work to their ends, and those `beside` them until then: these get `Stop` in a wait.

        What one raises is raised here, and ends the others: each gets it in its wait, or `Stop` in its place.
        """
        self._main, self.events = getcurrent(), events
        awaited = {self.add(work) for work in works}
        for work in beside:
            self.add(work)
        try:
            while awaited & self._tasks:
                self.wait(self._clock, inf)
                if self._failure is not None:
                    raise self._failure
        finally:
            self._end()

    def add(self, work: Callable[[], object]) -> greenlet:
        """Add a task, which begins at a wait of another one."""
        task = greenlet(partial(self._carry_out, work), parent=self._main)
        self._tasks.add(task)
        self._waits[task] = _Wait(self._clock, inf, is_over=True)
        return task

    def wake(self) -> None:
        """End the waits of all tasks, which look at what has changed."""
        for wait in self._waits.values():
            wait.is_over = True

    def wait(self, clock: Clock, seconds: float, watched: tuple[int, int] | None = None) -> bool:
        """Wait for one event, at most so long by that clock (infinity: no limit), or for `watched`, and handle it.

        True if the descriptor of `watched` has these events of poll(2). Raises `Stop`.
        """
        task = getcurrent()
        self._interrupt.check()
        wait = self._waits[task] = _Wait(clock, clock.monotonic_s() + seconds, watched)
        try:
            while (next_task := self._next(task)) is not task:
                if next_task is None:
                    self._poll(task)
                else:
                    next_task.switch()
        finally:
            self._waits.pop(task, None)
        self._interrupt.check()
        return wait.is_ready

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other task go on within the context, though events are handled."""
        outer, self._alone = self._alone, getcurrent()
        try:
            yield
        finally:
            self._alone = outer

    def _next(self, task: greenlet) -> greenlet | None:
        """Return the task that goes on, of those whose wait is over, the one that began it first; None if none is."""
        candidates = self._waits if self._alone is None else [task]
        return next((each for each in candidates if self._waits[each].is_over), None)

    def _poll(self, task: greenlet) -> None:
        """Poll for all that wait, for that one alone where it is to be alone, and handle the process's events."""
        waits = [*self._waits.values()] if self._alone is None else [self._waits[task]]
        poll, events, signals = select.poll(), self.events, self._interrupt.descriptor
        left_s = min(wait.due_s - wait.clock.monotonic_s() for wait in waits)
        for wait in waits:
            if wait.watched is not None:
                poll.register(*wait.watched)
        if events is not None:
            left_s = min(left_s, events.deadline_s() - self._clock.monotonic_s())
            for descriptor, awaited in events.wake_fds():
                poll.register(descriptor, awaited)
        if signals is not None:
            poll.register(signals, select.POLLIN)
        clock = REAL if any(wait.clock is REAL for wait in waits) else self._clock
        ready = {descriptor for descriptor, _ in clock.poll(poll, None if left_s == inf else max(0.0, left_s))}
        if signals in ready:
            os.read(signals, select.PIPE_BUF)
        for wait in self._waits.values():
            if not wait.is_over:
                wait.is_ready = wait.watched is not None and wait.watched[0] in ready
                wait.is_over = wait.is_ready or wait.due_s - wait.clock.monotonic_s() <= _ROUNDING_S
        has_news = events is not None and events.handle(ready)
        if signals in ready or has_news:
            self.wake()

    def _carry_out(self, work: Callable[[], object]) -> None:
        task = getcurrent()
        del self._waits[task]
        try:
            work()
        except BaseException as failure:  # noqa: BLE001 - `run` raises it
            self._failure = self._failure or failure
        finally:
            self._tasks.discard(task)
            self.wake()  # its end may be what others wait for

    def _end(self) -> None:
        """End the tasks that are left, as the process ends."""
        failure = self._failure
        ending = Stop() if failure is None or isinstance(failure, Exception) else failure
        for task in [*self._tasks]:
            if not task:  # it has not begun
                self._tasks.discard(task)
            while task in self._tasks:
                task.throw(ending)
        self._waits.clear()
        self._failure = self.events = None


class Superseded(Exception):
    """Newer events ended the wait: a fresh snapshot is worth more than finishing this one."""


class TimeIsUp(Exception):
    """The time that some work had is over; see `Waiter.within`."""


class Event(Enum):
    """An event that may come while the work for a sandbox waits."""

    SUSPEND = "the machine slept: its connections are dead, workspace and sandbox may be others"
    RELOAD = "another configuration is to count, or the sandbox is configured no more"
    SAVE = "the agent's work is to be saved, before its sandbox ends"
    CHANGE = "a change in the workspace is due"
    REQUEST = "someone asks for a sync"
    PAUSE = "a person paused"
    WRITER = "a command is to write to the workspace"


# What a sandbox's work may have to give way to: the second, past or future, of each event that has come or will.
NewerEvents = Mapping[Event, float]


class Work(Enum):
    """The kinds of work that wait, each with the events that it gives way to."""

    EFFECT = frozenset[Event]()  # an initialize, a removal: it must be completed
    UPLOAD = frozenset({Event.SUSPEND, Event.RELOAD, Event.SAVE})  # the look beside it, too
    READ = frozenset({Event.RELOAD, Event.SAVE, Event.CHANGE, Event.REQUEST, Event.PAUSE})  # and nothing else
    RETRY = frozenset({Event.RELOAD, Event.SAVE, Event.REQUEST, Event.PAUSE, Event.WRITER})  # the wait before one

    def gives_way_s(self, newer: NewerEvents) -> float:
        """Return the second, past or future, at which such work gives way to these events; infinity: to none."""
        return min((at_s for event, at_s in newer.items() if event in self.value), default=inf)


class _Terms(Struct, frozen=True):
    """The terms of the waits within a context, which end at that second of the clock."""

    work: Work = Work.EFFECT
    newer: Callable[[], NewerEvents] = dict
    report: Callable[[], None] | None = None
    ends_s: float = inf
    patience_s: float = 0.0


class Waiter:
    """Waits for one piece of work; `tasks` has those of the process, where there are several."""

    def __init__(self, interrupt: Interrupt, clock: Clock, tasks: Tasks | None = None) -> None:
        self.interrupt = interrupt
        self.clock = clock
        self.tasks = tasks or Tasks(interrupt, clock)
        self._terms = _Terms()
        self._polled_at_s = -inf
        self._came_s = inf  # since when patient work has an event that it gives way to

    @contextmanager
    def _under(self, **terms: Any) -> Iterator[None]:
        outer, self._terms = self._terms, replace(self._terms, **terms)
        try:
            yield
        finally:
            self._terms = outer

    def superseded_by(self, newer: Callable[[], NewerEvents]) -> AbstractContextManager[None]:
        """Have the work within the context give way to the events that this returns, whenever it is asked."""
        return self._under(newer=newer)

    def doing(self, work: Work, report: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """Let waits within the context raise `Superseded` once an event has come that such work gives way to.

        They call `report` every `POLL_EVERY_S` seconds.
        """
        return self._under(work=work, report=report)

    def be_patient(self, seconds: float) -> None:
        """Have the work within the present context go on for so many seconds after an event that it gives way to."""
        self._terms, self._came_s = replace(self._terms, patience_s=seconds), inf

    def within(self, seconds: float) -> AbstractContextManager[None]:
        """Let waits within the context, and `poll_events`, raise `TimeIsUp` after so many seconds in all.

        It ends what no time-out of a single wait does: an answer that comes byte by byte, one request after the other.
        """
        return self._under(ends_s=min(self._terms.ends_s, self.clock.monotonic_s() + seconds))

    def wait(self, until_s: float) -> None:
        """Wait for one event, at most until that second (infinity: no limit), and handle it. Raises `Stop`."""
        self._wait(self.clock, until_s - self.clock.monotonic_s())

    def repeat(self, act: Callable[[], None], due_s: Callable[[], float]) -> None:
        """Act whenever that is due, and again after newer events have ended it. Raises `Stop`, in the end."""
        while True:
            if due_s() > self.clock.monotonic_s():
                self.wait(due_s())
            else:
                with suppress(Superseded):
                    act()

    def sleep(self, seconds: float) -> None:
        """Wait so long, and handle events meanwhile. Raises `Stop`, `Superseded`, `TimeIsUp`."""
        ends_s = self.clock.monotonic_s() + seconds
        while True:
            ended_in_s, left_s = self._ended_in_s(), ends_s - self.clock.monotonic_s()
            if left_s <= _ROUNDING_S:
                return
            self._wait(self.clock, min(left_s, ended_in_s))

    def wait_ready(self, descriptor: int, events: int, ends_s: float) -> bool:
        """True if the descriptor has these events of poll(2) before that second of the machine's monotonic clock.

        Other events are handled meanwhile. Raises `Stop`, `Superseded`, `TimeIsUp`.
        """
        while True:
            left_s = ends_s - REAL.monotonic_s()
            if self._wait(REAL, min(left_s, self._ended_in_s()), (descriptor, events)):
                return True
            if left_s <= 0:
                return False

    def poll_events(self) -> None:
        """Handle events, every `POLL_EVERY_S`, in work that never waits. Raises `Stop`, `Superseded`, `TimeIsUp`."""
        self.interrupt.check()
        if self.tasks.events is not None and REAL.monotonic_s() - self._polled_at_s >= POLL_EVERY_S:
            self._wait(REAL, 0.0)
            self._ended_in_s()

    def _wait(self, clock: Clock, seconds: float, watched: tuple[int, int] | None = None) -> bool:
        """Wait for one event, so long at most; true if the watched descriptor is ready."""
        report = self._terms.report
        if report is not None:
            seconds = min(seconds, self._polled_at_s + POLL_EVERY_S - REAL.monotonic_s())
        is_ready = self.tasks.wait(clock, seconds, watched)
        self._polled_at_s = REAL.monotonic_s()
        if report is not None:
            report()
        return is_ready

    def _ended_in_s(self) -> float:
        """Return the seconds until newer events end the work, or its time is over. Raises `Superseded`, `TimeIsUp`."""
        terms = self._terms
        newer_s = inf if terms.work is Work.EFFECT else terms.work.gives_way_s(terms.newer())
        now_s = self.clock.monotonic_s()  # read last, so that an event of now has come
        # An event that has come may be told as one of now each time.
        self._came_s = min(self._came_s, newer_s) if newer_s <= now_s else inf
        superseded_s = min(self._came_s, newer_s) + terms.patience_s
        if terms.ends_s <= now_s:
            raise TimeIsUp
        if superseded_s <= now_s:
            raise Superseded
        return min(terms.ends_s, superseded_s) - now_s
