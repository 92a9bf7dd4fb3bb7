"""Waits in scripted time: what they listen to, and what interrupts them."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from syncd.core.interrupt import Interrupt
from syncd.core.waiter import GivesWay, Superseded, Waiter
from tests.clock import ScriptedClock


class FakeListener:
    """A listener without wake descriptors that counts its calls."""

    def __init__(self) -> None:
        self.due: float | None = None
        self.newer: float | None = None
        self.calls = 0

    def wake_fds(self) -> list[tuple[int, int]]:
        return []

    def due_s(self) -> float | None:
        return self.due

    def hear(self, ready: Collection[int]) -> None:
        self.calls += 1
        self.due = None

    def newer_s(self, gives_way: GivesWay) -> float | None:
        return self.newer


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture
def listener() -> FakeListener:
    return FakeListener()


@pytest.fixture
def waiter(clock: ScriptedClock, listener: FakeListener) -> Waiter:
    waiter = Waiter(Interrupt(), clock)
    waiter.listener = listener
    return waiter


def test_a_sleep_has_its_length(waiter: Waiter, clock: ScriptedClock, listener: FakeListener) -> None:
    """The listener is called in time for what is due within it."""
    before = clock.monotonic
    listener.due = before + 2
    waiter.sleep(5)
    assert clock.monotonic == before + 5
    assert clock.slept == [2, 3]
    assert listener.calls == 2


def test_a_wait_that_never_gives_way(waiter: Waiter, clock: ScriptedClock, listener: FakeListener) -> None:
    """A newer change does not interrupt it."""
    before, listener.newer = clock.monotonic, clock.monotonic
    waiter.sleep(5)
    assert clock.monotonic == before + 5


@pytest.mark.parametrize("gives_way", [GivesWay.TO_A_FRESH_START, GivesWay.TO_ANYTHING_NEWER])
def test_a_wait_that_gives_way(
    waiter: Waiter, clock: ScriptedClock, listener: FakeListener, gives_way: GivesWay
) -> None:
    """It is interrupted exactly when the change is due; after it waits are not interrupted."""
    before = clock.monotonic
    listener.newer = before + 3
    with pytest.raises(Superseded), waiter.giving_way(gives_way):
        waiter.sleep(5)
    assert clock.monotonic == before + 3
    waiter.sleep(5)


def test_nested_stages(waiter: Waiter, clock: ScriptedClock, listener: FakeListener) -> None:
    """An inner stage has its own rule, and the outer one has its own again after it."""
    listener.newer = clock.monotonic
    with waiter.giving_way(GivesWay.TO_ANYTHING_NEWER):
        with waiter.giving_way(GivesWay.NEVER):
            waiter.sleep(1)
        with pytest.raises(Superseded):
            waiter.sleep(1)
