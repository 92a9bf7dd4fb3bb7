"""Waits in scripted time: what is heard, and what gives way."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from syncd.core.interrupt import Interrupt
from syncd.core.waiter import GivesWay, Superseded, Waiter
from tests.clock import ScriptedClock


class Ear:
    """A listener without alarms; `hears` is called for each time that it hears."""

    def __init__(self) -> None:
        self.due: float | None = None
        self.newer: float | None = None
        self.heard = 0

    def wake_fds(self) -> list[tuple[int, int]]:
        return []

    def due_s(self) -> float | None:
        return self.due

    def hear(self, ready: Collection[int]) -> None:
        self.heard += 1
        self.due = None

    def newer_s(self, gives_way: GivesWay) -> float | None:
        return self.newer


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def waiter(clock: ScriptedClock, ear: Ear) -> Waiter:
    waiter = Waiter(Interrupt(), clock)
    waiter.listener = ear
    return waiter


def test_a_sleep_lasts_as_long_as_it_was_to(waiter: Waiter, clock: ScriptedClock, ear: Ear) -> None:
    """What is due in it is heard in its time."""
    before = clock.monotonic
    ear.due = before + 2
    waiter.sleep(5)
    assert clock.monotonic == before + 5
    assert clock.slept == [2, 3]
    assert ear.heard == 2


def test_what_never_gives_way_goes_on(waiter: Waiter, clock: ScriptedClock, ear: Ear) -> None:
    """Whatever is newer."""
    before, ear.newer = clock.monotonic, clock.monotonic
    waiter.sleep(5)
    assert clock.monotonic == before + 5


@pytest.mark.parametrize("gives_way", [GivesWay.TO_A_FRESH_START, GivesWay.TO_ANYTHING_NEWER])
def test_what_gives_way_does_in_time(waiter: Waiter, clock: ScriptedClock, ear: Ear, gives_way: GivesWay) -> None:
    """Not before the change is due, and not later; outside of it nothing gives way any more."""
    before = clock.monotonic
    ear.newer = before + 3
    with pytest.raises(Superseded), waiter.giving_way(gives_way):
        waiter.sleep(5)
    assert clock.monotonic == before + 3
    waiter.sleep(5)


def test_an_inner_stage_has_its_own_way(waiter: Waiter, clock: ScriptedClock, ear: Ear) -> None:
    """And the outer one has its own again after it."""
    ear.newer = clock.monotonic
    with waiter.giving_way(GivesWay.TO_ANYTHING_NEWER):
        with waiter.giving_way(GivesWay.NEVER):
            waiter.sleep(1)
        with pytest.raises(Superseded):
            waiter.sleep(1)
