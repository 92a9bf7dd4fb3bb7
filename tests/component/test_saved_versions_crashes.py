"""A process is killed at each step of saving or dropping a version, by `kill -9` or a power cut.

Afterwards each version that is listed is whole, those from before are all there, and the next save removes what was
made or dropped by half. All combinations: `python -m pytest -m long tests/component/test_saved_versions_crashes.py`.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import pytest

from syncd.sandbox.saved_versions import Why
from tests.clock import NOON_S
from tests.component.crash_machine import Disk, PowerCut
from tests.component.forks import Forks, forks_of
from tests.component.saved_versions_worker import contents, entries, store
from tests.instants import Choice, all_of, few

CUTS = [None, *PowerCut]
DEATHS = pytest.mark.parametrize("torn", [False, True], ids=["before", "half-way"])


class SavedVersionsMachine:
    """A state folder with a version in it, and processes that save or drop one and die."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        self._folder = folder
        self._forks = forks
        self._chance = Random(5)
        self.state = folder / "state"

    def begin(self, versions: int) -> None:
        """Have an empty folder, then save so many versions."""
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir()
        self._disk = Disk()
        for number in range(1, versions + 1):
            assert self.run("save", number) is not None

    def run(self, do: str, number: int, at: int = 0, **more: Any) -> list[str] | None:
        """Save or drop in a process of its own, and return its steps; None if it was killed."""
        report = self._folder / "report"
        order = {"do": do, "number": number, "at": at, "torn": False, "folder": str(self.state), **more}
        order |= {"report": str(report), "copies": str(self._folder / "copies")}
        self._forks.died(order)
        ended, steps, events = pickle.loads(report.read_bytes())
        self._disk.play(events)
        return None if ended is None else list(steps)

    def cut_power(self, cut: PowerCut) -> None:
        """Drop what was not flushed; what the database committed survives."""
        self._disk.cut_power([str(self.state)], cut, self._chance)

    def ids(self) -> dict[int, str]:
        """Return the ids of the listed versions, each by its number, after a check that they are whole."""
        found = {}
        for version in store(str(self.state), 0).all():
            destination = self._folder / "restored"
            extracted = store(str(self.state), 0).restore(version.id, str(destination))
            assert extracted.left_out == []
            number = int(os.readlink(destination / "link"))
            assert (destination / "empty folder").is_dir()
            assert {path: (destination / path).read_bytes() for path in contents(number)} == contents(number)
            shutil.rmtree(destination)
            found[number] = version.id
        assert store(str(self.state), 0).count == len(found)
        return found

    def recover(self) -> None:
        """Save once more, a month later, which removes all that nobody names."""
        before = set(self.ids().values())
        blobs = self.state / "blobs"
        written_s = max(path.stat().st_mtime for path in (blobs, *blobs.iterdir()))
        later = store(str(self.state), written_s + 31 * 86_400 - NOON_S)
        saved = later.save(Why.REMOVED, "box", entries(9, self._folder / "copies"))
        assert set(self.ids().values()) == before | {saved.id}
        named = {digest.hex() for version in later.all() for digest in version.contents()}
        assert {path.name for path in blobs.iterdir()} == named
        assert not list(self.state.glob("*.damaged"))
        for path in (blobs, *blobs.iterdir()):
            assert path.stat().st_mode & 0o077 == 0


@pytest.fixture
def saver(memory_folder: Path) -> Iterator[SavedVersionsMachine]:
    """Return a machine."""
    with forks_of("tests.component.saved_versions_worker") as forks:
        yield SavedVersionsMachine(memory_folder, forks)


def _steps(steps: list[str] | None, *, torn: bool) -> int:
    """Return how many steps a process can die at."""
    assert steps is not None
    return steps.count("write") if torn else len(steps)


def _save_deaths(saver: SavedVersionsMachine, choice: Choice, cuts: Sequence[PowerCut | None], *, torn: bool) -> None:
    """Die at the chosen steps of the second save."""
    chosen = cycle(cuts)
    saver.begin(1)
    count = _steps(saver.run("save", 2), torn=torn)
    assert count >= (2 if torn else 12)
    assert set(saver.ids()) == {1, 2}
    for step in choice(count):
        saver.begin(1)
        ended = saver.run("save", 2, step, torn=torn)
        if (cut := next(chosen)) is not None:
            saver.cut_power(cut)
        assert set(saver.ids()) in ({1}, {1, 2}) if ended is None else ({1, 2},)
        saver.recover()


def _drop_deaths(saver: SavedVersionsMachine, choice: Choice, cuts: Sequence[PowerCut | None], *, torn: bool) -> None:
    """Die at the chosen steps of dropping the older of two versions that share a content."""
    chosen = cycle(cuts)
    saver.begin(2)
    count = _steps(saver.run("drop", 1, id=saver.ids()[1]), torn=torn)
    assert count >= (0 if torn else 4)
    assert set(saver.ids()) == {2}
    for step in choice(count):
        saver.begin(2)
        ended = saver.run("drop", 1, step, torn=torn, id=saver.ids()[1])
        if (cut := next(chosen)) is not None:
            saver.cut_power(cut)
        found = set(saver.ids())
        saver.recover()
        assert found in ({2}, {1, 2}) if ended is None else ({2},)


def test_the_commit_comes_last(saver: SavedVersionsMachine) -> None:
    """The steps of a save: new contents, each flushed as those that were there; their folder; then one commit."""
    saver.begin(1)
    steps = saver.run("save", 2)
    assert steps is not None
    # A clean-up comes first, which has nothing to write.
    assert [step for step in steps if step.startswith(("commit", "flush"))] == [
        "commit",
        "flush",
        "flush",
        "flush",
        "flush folder",
        "commit",
    ]
    assert steps[-1] == "commit"
    assert len([step for step in steps if step.startswith("move")]) == 2


@DEATHS
def test_killed_while_saving(saver: SavedVersionsMachine, *, torn: bool) -> None:
    """It is killed at some steps, by each kind of death in turn."""
    _save_deaths(saver, few, CUTS, torn=torn)


def test_killed_while_dropping(saver: SavedVersionsMachine) -> None:
    """It is killed at some steps, by each kind of death in turn."""
    _drop_deaths(saver, few, CUTS, torn=False)


@pytest.mark.long
@pytest.mark.parametrize("cut", CUTS)
@DEATHS
def test_killed_anywhere(saver: SavedVersionsMachine, cut: PowerCut | None, *, torn: bool) -> None:
    """It is killed at each step, by each kind of death at each."""
    for _ in range(5 if cut is PowerCut.ANY else 1):
        _save_deaths(saver, all_of, [cut], torn=torn)
        _drop_deaths(saver, all_of, [cut], torn=torn)
