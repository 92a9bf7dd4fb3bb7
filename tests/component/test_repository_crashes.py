"""The program of the repository in the sandbox is killed at each of its steps; the next request ends well.

All steps take some seconds on an idle machine: `python -m pytest -m long` has them, other runs every seventh.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.component.repository_crash_worker import DEAD
from tests.component.repository_rig import LocalRunner, RepositoryRig, sent
from tests.repo.sources import REPO

MOST_STEPS = 300


class DyingRunner(LocalRunner):
    """Runs the program in a process that ends at the `at`-th step; 0: never."""

    def __init__(self, workspace: Path, runs: Path, process: subprocess.Popen[str]) -> None:
        super().__init__(workspace, runs)
        self._process = process
        self.at = 0
        self.died = False

    def _run(self, folder: Path) -> str:
        output = folder.with_suffix(".out")
        environment = {"AGENT_WORKSPACE": str(self._workspace), "PATH": self.path, "HOME": str(folder)}
        order = {"folder": str(folder), "output": str(output), "environment": environment, "at": self.at}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        assert code in (0, DEAD), "the process itself broke; see its stderr"
        self.died = code == DEAD
        said = output.read_text()
        output.unlink()
        return "" if self.died else said


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[RepositoryRig]:
    """A sandbox whose disk is in memory if possible, where a flush costs nothing."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(tmp_path)
    command = [sys.executable, "-m", "tests.component.repository_crash_worker"]
    with (
        TemporaryDirectory(dir=memory) as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPO) as process,
    ):
        try:
            rig = RepositoryRig(Path(folder))
            rig.runner = DyingRunner(rig.workspace, Path(folder) / "runs", process)
            rig.restart()
            yield rig
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def _dies(rig: RepositoryRig, step: int) -> bool:
    """Have it follow, die at that step, and follow again. Return False if it has no such step."""
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
    assert {path.name for path in (rig.workspace / ".git/syncd").iterdir()} <= {"lock", "state", "exclude"}
    return died


def _deaths_of_making(rig: RepositoryRig, stride: int) -> int:
    """Die at each `stride`-th step of making it, and return how often."""
    rig.arrive({"a": "1\n", "d/b": "2\n", ".gitattributes": "*.w text\n", "c.w": "3\r\n"})
    rig.files["c.w"] = sent("3\n")  # as git keeps it
    for deaths, step in enumerate(range(1, MOST_STEPS, stride)):
        rig.client.forget()
        shutil.rmtree(rig.workspace / ".git", ignore_errors=True)
        if not _dies(rig, step):
            return deaths
    raise AssertionError("a run without end")


def _deaths_of_following(rig: RepositoryRig, stride: int) -> int:
    """Die at each `stride`-th step of moving the branch, and return how often; an agent's commit stays."""
    rig.send({"a": "0\n", "d/b": "0\n"})
    rig.git("checkout", "-q", "-b", "mine")
    (rig.workspace / "a").write_text("the agent's\n")
    rig.git("commit", "-qam", "the agent's")
    mine = rig.at("mine")
    rig.git("checkout", "-q", "main")
    for deaths, step in enumerate(range(1, MOST_STEPS, stride)):
        rig.arrive({"a": f"{step}\n", f"new{step}": "x", "d/b": None if "d/b" in rig.files else "b\n"})
        died = _dies(rig, step)
        assert rig.at("mine") == mine
        assert rig.tree("mine")["a"][1] == b"the agent's\n"
        if not died:
            return deaths
    raise AssertionError("a run without end")


def test_killed_while_it_is_made(rig: RepositoryRig) -> None:
    """It dies at every seventh step."""
    assert _deaths_of_making(rig, 7) > 10


def test_killed_while_it_follows(rig: RepositoryRig) -> None:
    """It dies at every seventh step."""
    assert _deaths_of_following(rig, 7) > 5


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killed_anywhere(rig: RepositoryRig) -> None:
    """It dies at each step."""
    assert _deaths_of_making(rig, 1) > 75
    rig.client.forget()
    shutil.rmtree(rig.workspace / ".git")
    rig.arrive(dict.fromkeys(["c.w", ".gitattributes"]))
    assert _deaths_of_following(rig, 1) > 40
