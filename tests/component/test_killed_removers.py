"""A process is killed at any step of a sync that removes files in the sandbox by executions that go on running.

After each death the workspace stays, is restored to the version before, or changes; then a new process syncs once: the
sandbox equals the workspace, then and after all executions have ended.

All combinations take some minutes: `python -m pytest -m long`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.component.crash_machine import Machine
from tests.instants import Choice, all_of, few
from tests.recorded import records

AFTERWARDS = ["stay", "take back", "change"]


class RemovalScenario:
    """A workspace in which each version deletes paths or changes their kind."""

    def __init__(self, on: Machine) -> None:
        self.machine = on
        self.before = on.workspace.parent / "before"
        self.version = 0
        self.change()

    def change(self) -> None:
        """Delete paths in every way."""
        self.version += 1
        work = self.machine.workspace
        for path in work.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        odd = self.version % 2
        (work / "stay").write_text(f"chapter {self.version:06}")
        (work / f"only{odd}").write_text("deleted, and back with the same content, in turn")
        (work / "ln").symlink_to("01"[odd])
        if odd:
            (work / "d/e").mkdir(parents=True)
            (work / "d/e/f").write_text("deep")
            (work / "kind").write_text("a file")
        else:
            (work / "kind").mkdir()
            (work / "kind/in").write_text("a folder")

    def keep(self) -> None:
        """Copy the workspace as it is."""
        shutil.rmtree(self.before, ignore_errors=True)
        shutil.copytree(self.machine.workspace, self.before, symlinks=True)

    def go_on(self, then: str) -> None:
        """Change the workspace between two processes."""
        if then == "change":
            self.change()
        elif then == "take back":
            shutil.rmtree(self.machine.workspace)
            shutil.copytree(self.before, self.machine.workspace, symlinks=True)

    def check(self) -> None:
        """Sync once in a new process; afterwards nothing is left to do."""
        ended = self.machine.sync()
        assert ended.word in ("initialized", "unchanged"), ended.said
        self.machine.sandbox.wait()
        assert tree(self.machine.sandbox.workspace) == tree(self.machine.workspace)
        left = records(Path(self.machine.folders.state))  # a removal of what nobody wants may still be in `removals`
        assert not left & {"leftovers", "uncertain", "unanswered"}


def tree(top: Path) -> dict[str, str | bool]:
    """Return each path's content or target."""
    found: dict[str, str | bool] = {}
    for path in top.rglob("*"):
        content = os.readlink(path) if path.is_symlink() else path.is_dir() or path.read_text()
        found[str(path.relative_to(top))] = content
    return found


@pytest.fixture
def scenario(machine: Machine) -> RemovalScenario:
    """Return a machine with an unsynced workspace."""
    return RemovalScenario(machine)


AFTER = "commit uncertain"  # the last step before the sandbox is touched


def _deaths(scenario: RemovalScenario, deletions: str, choice: Choice, then: list[str], *, torn: bool) -> None:
    """Die at the chosen steps after the last one before the sandbox is touched."""
    scenario.machine.set("sandbox", "deletions", deletions)
    scenario.machine.sync()
    scenario.change()
    steps = scenario.machine.sync().steps
    steps = steps[steps.index(AFTER) :]
    count = sum(step in ("write", "send") for step in steps) if torn else len(steps)
    assert count > (3 if torn else 12)
    for number, step in enumerate(choice(count)):
        scenario.keep()
        scenario.change()
        if scenario.machine.sync(step, after=AFTER, torn=torn).word != "killed":
            break
        scenario.go_on(then[number % len(then)])
        scenario.check()


@pytest.mark.parametrize(
    ("deletions", "torn", "most"), [("mirror", False, 6), ("mirror", True, 4), ("reset", False, 4)]
)
def test_killed(scenario: RemovalScenario, deletions: str, most: int, *, torn: bool) -> None:
    """It is killed at some of the steps; which ones depends on the steps of a sync."""
    _deaths(scenario, deletions, lambda count: few(count, most), AFTERWARDS, torn=torn)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("then", AFTERWARDS)
@pytest.mark.parametrize("torn", [False, True], ids=["before", "half-way"])
@pytest.mark.parametrize("deletions", ["mirror", "reset"])
def test_killed_anywhere(scenario: RemovalScenario, deletions: str, then: str, *, torn: bool) -> None:
    """It is killed at each step, with each change afterwards."""
    _deaths(scenario, deletions, all_of, [then], torn=torn)
