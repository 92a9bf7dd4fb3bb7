"""The program of the repository in the sandbox is killed at each of its steps; the next request ends well.

A run tries a few of them, `python -m pytest -m long` all.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.forks import Forks, forks_of
from tests.component.program_rig import environment_of
from tests.component.repository_rig import LocalRunner, RepositoryRig
from tests.instants import FEW_OR_ALL, Choice


class DyingRunner(LocalRunner):
    """Runs the program in a process that ends at the `at`-th step; 0: never."""

    def __init__(self, workspace: Path, runs: Path, forks: Forks) -> None:
        super().__init__(workspace, runs)
        self._forks = forks
        self.at = 0
        self.died = False
        self.count = 0  # of the steps of the last run that did not die

    def _run(self, folder: Path) -> str:
        output = folder.with_suffix(".out")
        environment, report = environment_of(self._workspace, folder), folder.with_suffix(".report")
        order = {"folder": str(folder), "output": str(output), "environment": environment, "at": self.at}
        self.died = self._forks.died({**order, "report": str(report)})
        _, steps, _ = pickle.loads(report.read_bytes())
        self.count = self.count if self.died else len(steps)
        report.unlink()
        said = output.read_text()
        output.unlink()
        return "" if self.died else said


@pytest.fixture
def rig(memory_folder: Path) -> Iterator[RepositoryRig]:
    with forks_of("tests.component.repository_crash_worker") as forks:
        rig = RepositoryRig(memory_folder)
        rig.runner = DyingRunner(rig.workspace, memory_folder / "runs", forks)
        rig.restart()
        yield rig


def _die(rig: RepositoryRig, step: int) -> None:
    """Have it follow, die at that step, and follow again."""
    assert isinstance(rig.runner, DyingRunner)
    rig.runner.at = step
    rig.follow()
    died, rig.runner.at = rig.runner.died, 0
    rig.clock.go_on(3600)
    if died and step % 2:
        rig.restart("not recorded")
    rig.follow()
    rig.check()
    assert rig.is_following
    assert {path.name for path in (rig.workspace / ".git/syncd").iterdir()} <= {"lock", "state"}


def _count(rig: RepositoryRig) -> int:
    """Return how many steps it has to follow what arrived."""
    rig.follow()
    assert isinstance(rig.runner, DyingRunner)
    return rig.runner.count


@FEW_OR_ALL
@pytest.mark.timeout(600)
def test_killed_while_it_is_made(rig: RepositoryRig, choice: Choice) -> None:
    """The next run makes it."""
    rig.arrive({"a": "1\n", "d/b": "2\n", ".gitattributes": "*.w text\n", "c.w": "3\r\n"})
    count = _count(rig)
    assert count > 75
    for step in choice(count):
        rig.client.forget()
        shutil.rmtree(rig.workspace / ".git", ignore_errors=True)
        _die(rig, step)


@FEW_OR_ALL
@pytest.mark.timeout(600)
def test_killed_while_it_follows(rig: RepositoryRig, choice: Choice) -> None:
    """The next run brings the branch to what was sent; an agent's commit stays."""
    rig.send({"a": "0\n", "d/b": "0\n"})
    rig.git("checkout", "-q", "-b", "mine")
    (rig.workspace / "a").write_text("the agent's\n")
    rig.git("commit", "-qam", "the agent's")
    mine = rig.at("mine")
    rig.git("checkout", "-q", "main")
    rig.arrive({"a": "1\n", "new": "x", "d/b": None})
    count = _count(rig)
    assert count > 40
    for step in choice(count):
        rig.arrive({"a": f"{step}\n", f"new{step}": "x", "d/b": None if "d/b" in rig.files else "b\n"})
        _die(rig, step)
        assert rig.at("mine") == mine
        assert rig.tree("mine")["a"][1] == b"the agent's\n"
