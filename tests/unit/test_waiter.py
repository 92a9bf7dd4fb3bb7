"""Waits in scripted time: events that are handled meanwhile, and work that is superseded."""

from __future__ import annotations

import os
import select
from collections.abc import Collection

import pytest

from syncd.core.clock import SystemClock
from syncd.core.interrupt import Interrupt
from syncd.core.waiter import Superseded, SupersededBy, TimeIsUp, Waiter
from tests.clock import ScriptedClock


class RecordingListener:
    """A listener without descriptors, which counts the calls of `handle`."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.superseded_at: float | None = None
        self.handled = 0

    def wake_fds(self) -> list[tuple[int, int]]:
        return []

    def deadline_s(self) -> float | None:
        return self.deadline

    def handle(self, ready: Collection[int]) -> None:
        self.handled += 1
        self.deadline = None

    def superseded_at_s(self, superseded_by: SupersededBy) -> float | None:
        return self.superseded_at


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture
def listener() -> RecordingListener:
    return RecordingListener()


@pytest.fixture
def waiter(clock: ScriptedClock, listener: RecordingListener) -> Waiter:
    waiter = Waiter(Interrupt(), clock)
    waiter.listener = listener
    return waiter


def test_a_sleep_lasts_its_full_time(waiter: Waiter, clock: ScriptedClock, listener: RecordingListener) -> None:
    """A deadline within the sleep is handled in time."""
    before = clock.monotonic
    listener.deadline = before + 2
    waiter.sleep(5)
    assert clock.monotonic == before + 5
    assert clock.slept == [2, 3]
    assert listener.handled == 2


def test_work_that_nothing_supersedes(waiter: Waiter, clock: ScriptedClock, listener: RecordingListener) -> None:
    """Newer events do not end work that nothing supersedes."""
    before, listener.superseded_at = clock.monotonic, clock.monotonic
    waiter.sleep(5)
    assert clock.monotonic == before + 5


@pytest.mark.parametrize("superseded_by", [SupersededBy.FRESH_START, SupersededBy.ANY_CHANGE])
def test_work_is_superseded_when_the_change_is_due(
    waiter: Waiter, clock: ScriptedClock, listener: RecordingListener, superseded_by: SupersededBy
) -> None:
    """The wait ends when the change is due; outside of the context nothing ends a wait."""
    before = clock.monotonic
    listener.superseded_at = before + 3
    with pytest.raises(Superseded), waiter.superseded_by(superseded_by):
        waiter.sleep(5)
    assert clock.monotonic == before + 3
    waiter.sleep(5)


def test_contexts_nest(waiter: Waiter, clock: ScriptedClock, listener: RecordingListener) -> None:
    """After the inner context the outer one applies again."""
    listener.superseded_at = clock.monotonic
    with waiter.superseded_by(SupersededBy.ANY_CHANGE):
        with waiter.superseded_by(SupersededBy.NOTHING):
            waiter.sleep(1)
        with pytest.raises(Superseded):
            waiter.sleep(1)


def test_an_event_that_comes_with_an_answer_is_handled(waiter: Waiter) -> None:
    """Each event is handled, also one that is reported once only, together with what is waited for."""
    ours, answer = os.pipe()
    theirs, event = os.pipe()
    received: list[set[int]] = []

    class Reported(RecordingListener):
        def wake_fds(self) -> list[tuple[int, int]]:
            return [(theirs, select.POLLIN)]

        def handle(self, ready: Collection[int]) -> None:
            received.append(set(ready))

    waiter.listener = Reported()
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
