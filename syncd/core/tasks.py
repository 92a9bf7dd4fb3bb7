"""Runs several pieces of work in one thread: where one waits, the others go on.

Each task is ordinary code with a stack of its own (a greenlet). A wait says what it waits for, and returns when that
has come; whichever task waits last polls for all of them. Between two of its waits a task is alone, so no other sees
what it has half done; within `alone` it stays so while it waits.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from greenlet import getcurrent, greenlet
from msgspec import Struct

from syncd.core.clock import Clock, SystemClock
from syncd.core.errors import Stop
from syncd.core.interrupt import Interrupt

_PIPE_BYTES = 1 << 16
# Shorter times are rounding errors of floating point.
_ROUNDING_S = 1e-6
# A connection depends on another machine, which a test's clock cannot speed up.
REAL = SystemClock()


class Listener(Protocol):
    """Handles the events of the process during waits. Times are seconds of the monotonic clock."""

    def wake_fds(self) -> list[tuple[int, int]]:
        """Return the descriptors to poll, each with its events of poll(2)."""

    def deadline_s(self) -> float | None:
        """Return the time at which `handle` is called even without an event; None: no such time."""

    def handle(self, ready: set[int]) -> bool:
        """Record events and answer requests; `ready` are the descriptors that have events. Begins no work.

        True if the tasks have to look at what came.
        """


class _Wait(Struct):
    """A task's wait for a time of its clock (None: no time), or for a descriptor's events of poll(2)."""

    clock: Clock
    due_s: float | None
    watched: tuple[int, int] | None

    @property
    def left_s(self) -> float | None:
        return None if self.due_s is None else max(0.0, self.due_s - self.clock.monotonic_s())

    def is_over(self, ready: set[int]) -> bool:
        left_s = self.left_s
        return (left_s is not None and left_s <= _ROUNDING_S) or (self.watched is not None and self.watched[0] in ready)


class Tasks:
    """The tasks of one thread. Code that is no task may wait too, as a command's does."""

    def __init__(self, interrupt: Interrupt, clock: Clock) -> None:
        self.listener: Listener | None = None
        self._interrupt = interrupt
        self._clock = clock
        self._waits: dict[greenlet, _Wait] = {}
        self._due: dict[greenlet, set[int]] = {}  # those whose wait is over, with the descriptor that is ready
        self._main = getcurrent()
        self._alone: greenlet | None = None
        self._tasks: set[greenlet] = set()
        self._works: dict[greenlet, Callable[[], None]] = {}  # of the tasks that have not begun
        self._failure: BaseException | None = None

    def run(self, works: Mapping[str, Callable[[], None]]) -> None:
        """Carry out these pieces of work, by name, and those that are added meanwhile, to their ends.

        What one raises is raised here, and ends the others: each gets it in its wait, or `Stop` in its place.
        """
        self._main = getcurrent()
        for work in works.values():
            self.add(work)
        try:
            while self._tasks:
                self.wait(self._clock, None)
                self._raise_failure()
        finally:
            self._end()

    def add(self, work: Callable[[], None]) -> None:
        """Add a task, which begins at a wait of another one."""
        task = greenlet(self._carry_out, parent=self._main)
        self._tasks.add(task)
        self._works[task] = work
        self._due[task] = set()

    def wake(self) -> None:
        """End the waits of all tasks, which look at what has changed."""
        for task in [*self._waits]:
            del self._waits[task]
            self._due[task] = set()

    def wait(self, clock: Clock, seconds: float | None, watched: tuple[int, int] | None = None) -> set[int]:
        """Wait for one event, at most so long by that clock (None: no limit), or for `watched`, and handle it.

        Return the descriptor of `watched` if it has these events of poll(2). Raises `Stop`.
        """
        task = getcurrent()
        self._interrupt.check()
        self._waits[task] = _Wait(clock, None if seconds is None else clock.monotonic_s() + seconds, watched)
        try:
            while (next_task := self._next(task)) is not task:
                if next_task is None:
                    self._poll(task)
                else:
                    next_task.switch()
        finally:
            self._waits.pop(task, None)
            ready = self._due.pop(task, set())
        self._interrupt.check()
        return ready

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other task go on within the context, though events are handled."""
        outer, self._alone = self._alone, getcurrent()
        try:
            yield
        finally:
            self._alone = outer

    def _next(self, task: greenlet) -> greenlet | None:
        """Return the task that goes on, of those whose wait is over; None if none is."""
        if self._alone is not None:
            return task if task in self._due else None
        return next(iter(self._due), None)

    def _poll(self, task: greenlet) -> None:
        """Poll for all that wait, for that one alone where it is to be alone, and handle the process's events."""
        waits = [self._waits[task]] if self._alone is not None else [*self._waits.values()]
        poll, listener = select.poll(), self.listener
        times = [left_s for wait in waits if (left_s := wait.left_s) is not None]
        for wait in waits:
            if wait.watched is not None:
                poll.register(*wait.watched)
        if listener is not None:
            for descriptor, events in listener.wake_fds():
                poll.register(descriptor, events)
            deadline_s = listener.deadline_s()
            if deadline_s is not None:
                times.append(deadline_s - self._clock.monotonic_s())
        signals = self._interrupt.descriptor
        if signals is not None:
            poll.register(signals, select.POLLIN)
        clock = REAL if any(wait.clock is REAL for wait in waits) else self._clock
        ready = {descriptor for descriptor, _ in clock.poll(poll, max(0.0, min(times)) if times else None)}
        if signals in ready:
            os.read(signals, _PIPE_BYTES)
        for each, wait in [*self._waits.items()]:
            if wait.is_over(ready):
                del self._waits[each]
                self._due[each] = ready & {wait.watched[0]} if wait.watched is not None else set()
        has_news = listener is not None and listener.handle(ready)
        if signals in ready or has_news:
            self.wake()

    def _carry_out(self) -> None:
        task = getcurrent()
        del self._due[task]
        try:
            self._works.pop(task)()
        except BaseException as failure:  # noqa: BLE001 - `run` raises it
            self._failure = self._failure or failure
        finally:
            self._tasks.discard(task)
            self._waits.pop(self._main, None)
            self._due[self._main] = set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _end(self) -> None:
        """End the tasks that are left, as the process ends."""
        failure = self._failure
        ending = Stop() if failure is None or isinstance(failure, Exception) else failure
        for task in [*self._tasks]:
            self._due.pop(task, None)
            if not task:  # it has not begun
                self._tasks.discard(task)
            while task in self._tasks:
                task.throw(ending)
        self._waits.clear()
        self._due.clear()
        self._failure = None


class TaskLock:
    """A lock between tasks: one holds it, the others wait. `is_kept`: nobody may take it, whoever keeps it so."""

    def __init__(self, tasks: Tasks | None = None) -> None:
        self.is_held = False
        self.is_kept: Callable[[], bool] = lambda: False
        self.on_free: Callable[[], None] = lambda: None
        self._tasks = tasks

    @contextmanager
    def held(self, wait: Callable[[], None]) -> Iterator[None]:
        """Hold it; `wait` waits for one event. Raises what that raises."""
        while self.is_held or self.is_kept():
            wait()
        self.is_held = True
        try:
            yield
        finally:
            self.is_held = False
            self.on_free()
            if self._tasks is not None:
                self._tasks.wake()
