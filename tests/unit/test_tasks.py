"""Several pieces of work in one thread, in scripted time."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from math import inf

import pytest

from syncd.core.errors import Stop
from syncd.core.interrupt import Interrupt
from syncd.core.waiter import REAL, Superseded, Tasks, Waiter
from tests.clock import ScriptedClock


@pytest.fixture
def tasks(clock: ScriptedClock) -> Tasks:
    return Tasks(Interrupt(), clock)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ours, theirs = os.pipe()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def waiter_of(tasks: Tasks, clock: ScriptedClock) -> Waiter:
    return Waiter(tasks._interrupt, clock, tasks)


def test_one_goes_on_while_another_waits(tasks: Tasks, clock: ScriptedClock) -> None:
    """Each sleeps its own time, and all together no longer than the longest."""
    began_s, done = clock.monotonic, []

    def sleeper(seconds: float) -> None:
        for _ in range(2):
            waiter_of(tasks, clock).sleep(seconds)
            done.append((seconds, clock.monotonic - began_s))

    tasks.run([lambda: sleeper(60), lambda: sleeper(1)])
    assert done == [(1, 1), (1, 2), (60, 60), (60, 120)]


def test_an_answer_is_given_to_the_one_that_waits_for_it(
    tasks: Tasks, clock: ScriptedClock, pipe: tuple[int, int]
) -> None:
    """Another one that waits for a time is not woken by it."""
    woken: list[str] = []

    def reads() -> None:
        assert tasks.wait(REAL, 60, (pipe[0], select.POLLIN))
        woken.append("reader")

    def writes() -> None:
        os.write(pipe[1], b"x")
        tasks.wait(clock, 5)
        woken.append("writer")

    tasks.run([reads, writes])
    assert woken == ["reader", "writer"]


def test_alone(tasks: Tasks, clock: ScriptedClock) -> None:
    """Within it no other goes on, whatever is due."""
    seen: list[str] = []

    def alone() -> None:
        waiter_of(tasks, clock).sleep(1)
        with tasks.alone():
            waiter_of(tasks, clock).sleep(60)
            seen.append("alone")

    def other() -> None:
        waiter_of(tasks, clock).sleep(2)
        seen.append("other")

    tasks.run([alone, other])
    assert seen == ["alone", "other"]


@pytest.mark.parametrize("failure", [ValueError("broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_what_one_raises_ends_all(tasks: Tasks, clock: ScriptedClock, failure: BaseException) -> None:
    """The others clean up, and the failure is the caller's, also of what goes on beside them."""
    ended: list[type[BaseException]] = []

    def waits() -> None:
        try:
            waiter_of(tasks, clock).wait(inf)
        except BaseException as error:
            ended.append(type(error))
            raise

    def fails() -> None:
        waiter_of(tasks, clock).sleep(1)
        raise failure

    with pytest.raises(type(failure)):
        tasks.run([waits], beside=[waits, fails])
    assert ended == [Stop if isinstance(failure, Exception) else KeyboardInterrupt] * 2


def test_what_goes_on_beside_ends_with_the_others(tasks: Tasks, clock: ScriptedClock) -> None:
    """It acts whenever that is due, and gets `Stop` in its wait then."""
    began_s, acted = clock.monotonic, list[float]()

    def act() -> None:
        acted.append(clock.monotonic - began_s)
        if len(acted) == 1:
            raise Superseded

    def due_s() -> float:
        return began_s + 10 * len(acted)

    tasks.run([lambda: waiter_of(tasks, clock).sleep(25)], beside=[lambda: waiter_of(tasks, clock).repeat(act, due_s)])
    assert (acted, clock.monotonic - began_s) == ([0, 10, 20], 25)


def test_a_stop_ends_all(tasks: Tasks, clock: ScriptedClock) -> None:
    """Each gets it in its wait, whichever polls."""
    ended: list[str] = []

    def waits(name: str) -> None:
        try:
            waiter_of(tasks, clock).sleep(100)
        finally:
            ended.append(name)

    def stops() -> None:
        waiter_of(tasks, clock).sleep(1)
        tasks._interrupt.request()
        waiter_of(tasks, clock).sleep(1)

    with pytest.raises(Stop):
        tasks.run([lambda: waits("a"), lambda: waits("b"), stops])
    assert sorted(ended) == ["a", "b"]
