"""Events in simulated time: a heap of what happens next, and processes that wait in it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import count
from math import inf
from typing import Any


class Timeline:
    """The simulated time, and what happens in it. Two events of one time happen in the order in which they were added.

    Times are seconds.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._numbers = count()

    def at(self, time_s: float, action: Callable[[Any], None], argument: Any = None) -> None:
        """Call `action` with the argument at that time, or now if it is over."""
        heapq.heappush(self._heap, (time_s, next(self._numbers), action, argument))

    def run(self, until_s: float) -> None:
        """Let everything happen up to that time."""
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            time_s, _, action, argument = heapq.heappop(heap)
            self.now_s = max(self.now_s, time_s)
            action(argument)
        self.now_s = until_s


@dataclass(frozen=True)
class Wait:
    """A process waits until then. One that `is_open` ends with any event, as the daemon's waits do."""

    until_s: float
    is_open: bool


Steps = Generator[Wait, None, None]


class Process:
    """A generator that yields its waits. `wake` ends a wait that is open."""

    def __init__(self, timeline: Timeline, steps: Steps) -> None:
        self._timeline = timeline
        self._steps = steps
        self._turn = 0
        self._is_open = False

    def start(self, at_s: float) -> None:
        """Begin then."""
        self._timeline.at(at_s, self._resume, self._turn)

    def wake(self) -> None:
        """Go on now if it waits for whatever comes first."""
        if self._is_open:
            self._resume(self._turn)

    def _resume(self, turn: int) -> None:
        if turn != self._turn:
            return  # an event ended that wait
        self._turn += 1
        self._is_open = False
        wait = next(self._steps)
        self._is_open = wait.is_open
        if wait.until_s < inf:
            self._timeline.at(wait.until_s, self._resume, self._turn)
