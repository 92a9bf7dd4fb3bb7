"""A process that acquires a sandbox is killed at each step: one sandbox is used, and few are lost."""

from __future__ import annotations

from itertools import cycle
from random import Random

import pytest

from syncd.remote.target import MOST_ACQUIRED
from tests.component.crash_machine import Machine, PowerCut
from tests.instants import Choice, all_of, few


@pytest.fixture
def on(machine: Machine) -> Machine:
    """A machine whose configuration names no sandbox."""
    machine.acquire()
    (machine.workspace / "a").write_text("1")
    return machine


def acquired(on: Machine) -> int:
    """Return how many sandboxes were acquired so far."""
    return on.emulator.request_log.ops().count("acquire")


def used(on: Machine) -> list[str]:
    """Return the sandboxes that hold anything."""
    return [box.id for box in on.emulator.sandboxes() if any(box.workspace.iterdir())]


@pytest.mark.parametrize(
    ("cuts", "choice"),
    [
        ([None, PowerCut.NAMES, None, PowerCut.ANY], lambda count: few(count, 10)),
        pytest.param([None], all_of, marks=pytest.mark.long),
        pytest.param([*PowerCut], all_of, marks=pytest.mark.long),
    ],
)
def test_one_is_used_and_one_is_lost_at_most(on: Machine, cuts: list[PowerCut | None], choice: Choice) -> None:
    """Wherever the process dies until it recorded its sandbox, the next one fills that one, or one more."""
    cut, chance = cycle(cuts), Random(7)
    steps = on.sync().steps
    recorded = [at for at, name in enumerate(steps) if name == "move sandbox"]
    assert len(recorded) == 2
    assert recorded[1] > 15
    for step in choice(recorded[1] + 2):
        on.forget_all()
        before, others = acquired(on), set(used(on))
        ended = on.sync(step)
        if (how := next(cut)) is not None:
            on.cut_power(how, chance)
        assert on.sync().word in ("initialized", "unchanged")
        assert on.sync().word == "unchanged"
        assert len(set(used(on)) - others) == 1, ended.steps
        assert acquired(on) - before <= 2, ended.steps


def test_repeated_deaths_stop_acquiring(on: Machine) -> None:
    """After a few processes that died before they received their sandbox, none acquires one any more."""
    for _ in range(MOST_ACQUIRED):
        assert on.sync(1, after="recv").word == "killed"
    assert acquired(on) == MOST_ACQUIRED
    for _ in range(3):
        ended = on.sync()
        assert (ended.word, "no further one is acquired for" in ended.said) == ("failed", True)
    assert acquired(on) == MOST_ACQUIRED
