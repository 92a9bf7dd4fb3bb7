"""The waits of the process: for a time, for a connection, or for a signal, and for events that end them meanwhile.

If a wait ended only for its own reason, a daemon could not react: a command, a change and the service manager's
watchdog would have to wait for a server that hangs. So each wait handles the process's events at once, and handling
only records events and answers requests. Work that events may end says so beforehand, with `superseded_by`.

Several pieces of work run in one thread: where one waits, the others go on. Each task is ordinary code with a stack of
its own (a greenlet). A wait says what it waits for, and returns when that has come; whichever task waits last polls for
all of them. Between two of its waits a task is alone, so no other sees what it has half done; within `alone` it stays
so while it waits.

A signal handler stores what is asked for, and no more, so that a signal interrupts no update of a file. Python calls it
in the main thread between two bytecodes: a signal that comes in the instant before a wait would not end that wait. But
Python also writes a byte into a pipe, at once and in whichever thread the signal comes (`signal.set_wakeup_fd`), and
each wait polls this pipe. Work that never waits calls `check` between its steps.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from math import inf
from typing import Protocol

from greenlet import getcurrent, greenlet
from msgspec import Struct

from syncd.core.clock import Clock, SystemClock
from syncd.core.errors import Stop

# Work that never waits handles events this often, and the progress of an upload is reported this often.
POLL_EVERY_S = 0.2
_PIPE_BYTES = 1 << 16
# Shorter times are rounding errors of floating point.
_ROUNDING_S = 1e-6
# A connection depends on another machine, which a test's clock cannot speed up.
REAL = SystemClock()


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

    def run(self, works: Iterable[Callable[[], None]]) -> None:
        """Carry out these pieces of work, and those that are added meanwhile, to their ends.

        What one raises is raised here, and ends the others: each gets it in its wait, or `Stop` in its place.
        """
        self._main = getcurrent()
        for work in works:
            self.add(work)
        try:
            while self._tasks:
                self.wait(self._clock, None)
                if self._failure is not None:
                    raise self._failure
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
            self.wake()  # its end may be what others wait for

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


class Superseded(Exception):
    """Newer events ended the wait: a fresh snapshot is worth more than finishing this one."""


class TimeIsUp(Exception):
    """The time that some work had is over; see `Waiter.within`."""


class SupersededBy(Enum):
    """The events that end the work that waits."""

    NOTHING = "work that must be completed: an initialize, a removal"
    FRESH_START = (
        "a suspend of the machine, another configuration, or the save of the agent's work before its sandbox ends: "
        "these end an upload, and a look of a sync"
    )
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
