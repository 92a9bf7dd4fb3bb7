"""A process that acquires a sandbox is killed at each step: one sandbox is used, and few are lost."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from random import Random

import pytest

from syncd.remote.sandbox_lifetime import MOST_ACQUIRED
from tests.component.crash_machine import Machine, PowerCut, machine

# More than such a sync has.
_MOST_STEPS = 200


@pytest.fixture
def on(tmp_path: Path) -> Iterator[Machine]:
    """A machine whose configuration names no sandbox."""
    with machine(tmp_path) as it:
        it.acquire()
        (it.workspace / "a").write_text("1")
        yield it


def acquired(on: Machine) -> int:
    """Return how many sandboxes were acquired so far."""
    return on.emulator.request_log.ops().count("acquire")


def used(on: Machine) -> list[str]:
    """Return the sandboxes that hold anything."""
    return [box.id for box in on.emulator.sandboxes() if any(box.workspace.iterdir())]


@pytest.mark.parametrize(
    ("cuts", "most_after"),
    [
        ([None, PowerCut.NAMES, None, PowerCut.ANY], 2),
        pytest.param([None], _MOST_STEPS, marks=pytest.mark.long),
        pytest.param([*PowerCut], _MOST_STEPS, marks=pytest.mark.long),
    ],
)
def test_one_is_used_and_one_is_lost_at_most(on: Machine, cuts: list[PowerCut | None], most_after: int) -> None:
    """Wherever the process dies, the next one fills the recorded sandbox, or one more.

    `most_after` steps after the acquisition are enough: the rest is any other sync's.
    """
    cut, chance = cycle(cuts), Random(7)
    for step in range(1, _MOST_STEPS):
        on.forget_all()
        before, others = acquired(on), set(used(on))
        ended = on.sync(step)
        if (how := next(cut)) is not None:
            on.cut_power(how, chance)
        assert on.sync().word in ("initialized", "unchanged")
        assert on.sync().word == "unchanged"
        assert len(set(used(on)) - others) == 1, ended.steps
        assert acquired(on) - before <= 2, ended.steps
        written = [at for at, name in enumerate(ended.steps) if name == "move sandbox"]
        if ended.word != "killed" or (len(written) == 2 and len(ended.steps) - written[1] > most_after):
            break
    assert len(written) == 2
    assert step > 15


def test_repeated_deaths_stop_acquiring(on: Machine) -> None:
    """After a few processes that died before they received their sandbox, none acquires one any more."""
    for _ in range(MOST_ACQUIRED):
        assert on.sync(1, after="recv").word == "killed"
    assert acquired(on) == MOST_ACQUIRED
    for _ in range(3):
        ended = on.sync()
        assert (ended.word, "no further one is acquired for" in ended.said) == ("failed", True)
    assert acquired(on) == MOST_ACQUIRED
