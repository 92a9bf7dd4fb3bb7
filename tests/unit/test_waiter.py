"""Waits in scripted time: events that are handled meanwhile, and work that is superseded."""

from __future__ import annotations

import os
import select

import pytest

from syncd.core.clock import SystemClock
from syncd.core.waiter import Interrupt, Superseded, SupersededBy, TimeIsUp, Waiter
from tests.clock import ScriptedClock


class RecordingWorker:
    """A worker that counts how often it noted the time."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.superseded_at: float | None = None
        self.handled = 0

    def deadline_s(self) -> float | None:
        return self.deadline

    def note_time(self) -> None:
        self.handled += 1
        self.deadline = None

    def superseded_at_s(self, superseded_by: SupersededBy) -> float | None:
        return self.superseded_at


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture
def worker() -> RecordingWorker:
    return RecordingWorker()


@pytest.fixture
def waiter(clock: ScriptedClock, worker: RecordingWorker) -> Waiter:
    waiter = Waiter(Interrupt(), clock)
    waiter.worker = worker
    return waiter


def test_a_sleep_lasts_its_full_time(waiter: Waiter, clock: ScriptedClock, worker: RecordingWorker) -> None:
    """A deadline within the sleep is handled in time."""
    before = clock.monotonic
    worker.deadline = before + 2
    waiter.sleep(5)
    assert clock.monotonic == before + 5
    assert clock.slept == [2, 3]
    assert worker.handled == 2


@pytest.mark.parametrize("superseded_by", [SupersededBy.FRESH_START, SupersededBy.ANY_CHANGE])
def test_work_is_superseded_when_the_change_is_due(
    waiter: Waiter, clock: ScriptedClock, worker: RecordingWorker, superseded_by: SupersededBy
) -> None:
    """The wait ends when the change is due; outside of the context nothing ends a wait."""
    before = clock.monotonic
    worker.superseded_at = before + 3
    with pytest.raises(Superseded), waiter.superseded_by(superseded_by):
        waiter.sleep(5)
    assert clock.monotonic == before + 3
    waiter.sleep(5)


def test_an_event_that_comes_with_an_answer_is_handled(waiter: Waiter) -> None:
    """Each event is handled, also one that is reported once only, together with what is waited for."""
    ours, answer = os.pipe()
    theirs, event = os.pipe()
    received: list[set[int]] = []

    class Reported:
        def wake_fds(self) -> list[tuple[int, int]]:
            return [(theirs, select.POLLIN)]

        def deadline_s(self) -> None:
            return None

        def handle(self, ready: set[int]) -> bool:
            received.append(ready - {ours})
            return True

    waiter.tasks.listener = Reported()
    try:
        waiter.poll_events()  # so that the next one of its own is not due yet
        os.write(answer, b"x")
        os.write(event, b"x")
        received.clear()
        assert waiter.wait_ready(ours, select.POLLIN, SystemClock().monotonic_s() + 60)
        assert received == [{theirs}]
    finally:
        for descriptor in (ours, answer, theirs, event):
            os.close(descriptor)


def test_work_that_has_so_much_time(waiter: Waiter, clock: ScriptedClock) -> None:
    """All its waits together take no longer, an inner context makes it no more, and later ones are not ended."""

    def work() -> None:
        waiter.sleep(3)
        with waiter.within(60):
            waiter.sleep(3)

    before = clock.monotonic
    with pytest.raises(TimeIsUp), waiter.within(5):
        work()
    assert clock.monotonic == before + 5
    work()
    assert clock.monotonic == before + 11
