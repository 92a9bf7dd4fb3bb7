"""Killed at any step of a sync that removes files in the sandbox, by executions that really run and go on without us.

After each death the workspace stays, is taken back to what it was before, or goes on changing; then a fresh process
syncs once, and the sandbox holds the workspace and nothing else, now and when all that was started there has ended.

All deaths with all that may follow take some minutes: `python -m pytest -m long`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.component.crash_machine import Machine, machine

# More than there are between the look at the workspace and the end.
MOST_STEPS = 200
AFTERWARDS = ["stay", "take back", "change"]


class Story:
    """A workspace in which each chapter deletes something, makes a folder of a file or a file of a folder."""

    def __init__(self, on: Machine) -> None:
        self.machine = on
        self.before = on.workspace.parent / "before"
        self.chapter = 0
        self.change()

    def change(self) -> None:
        """Every kind of deletion."""
        self.chapter += 1
        work = self.machine.workspace
        for path in work.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        odd = self.chapter % 2
        (work / "stay").write_text(f"chapter {self.chapter:06}")
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
        """Remember the workspace as it is."""
        shutil.rmtree(self.before, ignore_errors=True)
        shutil.copytree(self.machine.workspace, self.before, symlinks=True)

    def go_on(self, then: str) -> None:
        """What a person does between two processes."""
        if then == "change":
            self.change()
        elif then == "take back":
            shutil.rmtree(self.machine.workspace)
            shutil.copytree(self.before, self.machine.workspace, symlinks=True)

    def check(self) -> None:
        """One sync by a fresh process, and all is well: nothing is left to be done."""
        ended = self.machine.sync()
        assert ended.word in ("initialized", "unchanged"), ended.said
        self.machine.sandbox.wait()
        assert tree(self.machine.sandbox.workspace) == tree(self.machine.workspace)
        names = {path.name for path in Path(self.machine.folders.state).iterdir()}
        assert not names & {"started", "lingering", "unsure"}
        assert ended.word == "unchanged" or "perhaps-there" not in names


def tree(top: Path) -> dict[str, str | bool]:
    """Path to content or target."""
    found: dict[str, str | bool] = {}
    for path in top.rglob("*"):
        content = os.readlink(path) if path.is_symlink() else path.is_dir() or path.read_text()
        found[str(path.relative_to(top))] = content
    return found


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """A machine, and a workspace that is nowhere else yet. Its disk is memory where possible: there a flush is free."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(tmp_path)
    with TemporaryDirectory(dir=memory) as folder, machine(Path(folder)) as on:
        yield Story(on)


def _deaths(story: Story, deletions: str, stride: int, then: list[str], *, torn: bool) -> int:
    """Dies at each `stride`-th step from the one before the sandbox is touched on; how often that was."""
    story.machine.set("sandbox", "deletions", deletions)
    story.machine.sync()
    for deaths, step in enumerate(range(1, MOST_STEPS, stride)):
        story.keep()
        story.change()
        if story.machine.sync(step, after="open perhaps-there.new", torn=torn).word != "killed":
            return deaths
        story.go_on(then[deaths % len(then)])
        story.check()
    raise AssertionError("a sync without end")


@pytest.mark.parametrize("torn", [False, True], ids=["before", "half-way"])
@pytest.mark.parametrize("deletions", ["mirror", "reset"])
def test_killed(story: Story, deletions: str, *, torn: bool) -> None:
    """At some of the steps; which ones changes with what a sync does."""
    assert _deaths(story, deletions, 2 if torn else 6, AFTERWARDS, torn=torn) > (4 if deletions == "mirror" else 1)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("then", AFTERWARDS)
@pytest.mark.parametrize("torn", [False, True], ids=["before", "half-way"])
@pytest.mark.parametrize("deletions", ["mirror", "reset"])
def test_killed_anywhere(story: Story, deletions: str, then: str, *, torn: bool) -> None:
    """At each step, with each that may follow."""
    assert _deaths(story, deletions, 1, [then], torn=torn) > (3 if torn else 15)
