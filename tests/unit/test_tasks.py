"""Several pieces of work in one thread, in scripted time."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from syncd.core.errors import Stop
from syncd.core.waiter import REAL, Interrupt, TaskLock, Tasks, Waiter
from tests.clock import ScriptedClock


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


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

    tasks.run({"slow": lambda: sleeper(60), "quick": lambda: sleeper(1)})
    assert done == [(1, 1), (1, 2), (60, 60), (60, 120)]


def test_an_answer_is_given_to_the_one_that_waits_for_it(
    tasks: Tasks, clock: ScriptedClock, pipe: tuple[int, int]
) -> None:
    """Another one that waits for a time is not woken by it."""
    woken: list[str] = []

    def reads() -> None:
        assert tasks.wait(REAL, 60, (pipe[0], select.POLLIN)) == {pipe[0]}
        woken.append("reader")

    def writes() -> None:
        os.write(pipe[1], b"x")
        tasks.wait(clock, 5)
        woken.append("writer")

    tasks.run({"reader": reads, "writer": writes})
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

    tasks.run({"alone": alone, "other": other})
    assert seen == ["alone", "other"]


@pytest.mark.parametrize("failure", [ValueError("broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_what_one_raises_ends_all(tasks: Tasks, clock: ScriptedClock, failure: BaseException) -> None:
    """The others clean up, and the failure is the caller's; a task may be added meanwhile."""
    ended: list[type[BaseException]] = []

    def waits() -> None:
        try:
            waiter_of(tasks, clock).wait(None)
        except BaseException as error:
            ended.append(type(error))
            raise

    def fails() -> None:
        tasks.add(waits)
        waiter_of(tasks, clock).sleep(1)
        raise failure

    with pytest.raises(type(failure)):
        tasks.run({"waits": waits, "fails": fails})
    assert ended == [Stop if isinstance(failure, Exception) else KeyboardInterrupt] * 2


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
        tasks.run({"a": lambda: waits("a"), "b": lambda: waits("b"), "stops": stops})
    assert sorted(ended) == ["a", "b"]


def test_a_lock_is_held_by_one_at_a_time(tasks: Tasks, clock: ScriptedClock) -> None:
    """The next one has it as soon as it is free, also where what was done under it failed."""
    lock, held = TaskLock(tasks), []

    def holds(name: str) -> None:
        waiter = waiter_of(tasks, clock)
        for _ in range(2):
            with lock.held(lambda: waiter.wait(None)):
                held.append((name, "takes"))
                waiter.sleep(3)
                held.append((name, "leaves"))

    tasks.run({"a": lambda: holds("a"), "b": lambda: holds("b")})
    assert all(held[at][0] == held[at + 1][0] for at in range(0, len(held), 2))
    assert len(held) == 8
    assert not lock.is_held
