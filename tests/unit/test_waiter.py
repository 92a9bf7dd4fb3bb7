"""Waits in scripted time: events that are handled meanwhile, and work that is superseded."""

from __future__ import annotations

import os
import select
from math import inf

import pytest

from syncd.core.clock import SystemClock
from syncd.core.interrupt import Interrupt
from syncd.core.waiter import Event, Superseded, TimeIsUp, Waiter, Work
from tests.clock import ScriptedClock


class RecordingEvents:
    """What a process hears; it records what was ready."""

    def __init__(self, *descriptors: int) -> None:
        self.descriptors = descriptors
        self.deadline = inf
        self.handled: list[set[int]] = []

    def wake_fds(self) -> list[tuple[int, int]]:
        return [(each, select.POLLIN) for each in self.descriptors]

    def deadline_s(self) -> float:
        return self.deadline

    def handle(self, ready: set[int]) -> bool:
        self.handled.append(ready)
        self.deadline = inf
        return True


@pytest.fixture
def waiter(clock: ScriptedClock) -> Waiter:
    return Waiter(Interrupt(), clock)


def test_a_sleep_lasts_its_full_time(waiter: Waiter, clock: ScriptedClock) -> None:
    """A deadline within the sleep is handled in time."""
    waiter.tasks.events = events = RecordingEvents()
    before = clock.monotonic
    events.deadline = before + 2
    waiter.sleep(5)
    assert clock.monotonic == before + 5
    assert clock.slept == [2, 3]
    assert len(events.handled) == 2


ENDS = {
    Work.EFFECT: "",
    Work.UPLOAD: "suspend reload save",
    Work.READ: "reload save change request pause",
    Work.RETRY: "reload save request pause writer",
}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("work", Work)
def test_what_ends_which_work(waiter: Waiter, clock: ScriptedClock, work: Work, event: Event) -> None:
    """Such work ends when such an event comes, and no other does; outside of the context nothing ends a wait."""
    before, ends = clock.monotonic, event.name.lower() in ENDS[work].split()
    with waiter.superseded_by(lambda: {event: before + 3}):
        if ends:
            with pytest.raises(Superseded), waiter.doing(work):
                waiter.sleep(5)
        else:
            with waiter.doing(work):
                waiter.sleep(5)
        assert clock.monotonic == before + (3 if ends else 5)
        waiter.sleep(5)


def test_an_event_that_comes_with_an_answer_is_handled(waiter: Waiter) -> None:
    """Each event is handled, also one that is reported once only, together with what is waited for."""
    ours, answer = os.pipe()
    theirs, event = os.pipe()
    waiter.tasks.events = events = RecordingEvents(theirs)
    try:
        os.write(answer, b"x")
        os.write(event, b"x")
        assert waiter.wait_ready(ours, select.POLLIN, SystemClock().monotonic_s() + 60)
        assert events.handled == [{ours, theirs}]
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


def test_a_time_that_is_over_at_the_end_of_a_sleep(waiter: Waiter, clock: ScriptedClock) -> None:
    """What follows a sleep to the end of the time is not begun."""
    with pytest.raises(TimeIsUp), waiter.within(5):
        waiter.sleep(5)


def test_an_event_of_now_has_come() -> None:
    """However long it takes to tell of it."""

    class RunningClock(ScriptedClock):
        def monotonic_s(self) -> float:
            self.go_on(1e-3)
            return self.monotonic

    clock = RunningClock()
    waiter = Waiter(Interrupt(), clock)
    with (
        pytest.raises(Superseded),
        waiter.superseded_by(lambda: {Event.SUSPEND: clock.monotonic_s()}),
        waiter.doing(Work.UPLOAD),
    ):
        waiter.sleep(5)
