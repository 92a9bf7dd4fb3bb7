"""Fetching the file with the agent's commits by executions that really run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from syncd.core.interrupt import Interrupt
from syncd.core.waiter import Waiter
from syncd.remote.api import Api
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.target import Target
from syncd.sandbox.agent_repository import AgentRepository
from syncd.sandbox.executions import Executions
from syncd.sandbox.protocol import SandboxCommits
from syncd.store.state_db import StateDb
from tests.agent_commits import RepositoryThere
from tests.integration.sync_rig import Rig, rigged
from tests.integration.test_look import exported, tar_gz

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as it:
        it.wait_for_programs()
        yield it


@pytest.fixture
def repository(rig: Rig) -> RepositoryThere:
    made = RepositoryThere(rig.sandbox.workspace)
    made.commit("one", {"a": b"ours", "b": b"longer"})
    return made


def fetch(rig: Rig, home: str) -> tuple[SandboxCommits, str]:
    waiter = Waiter(Interrupt(), rig.clock)
    target = Target(rig.emulator.base_url, rig.sandbox.id, "us")
    db = StateDb(str(folder(rig)))
    executions = Executions(Api(target, rig.key, rig.client), rig.client, waiter, db, target)
    there = AgentRepository(lambda: None, executions, target, db, waiter)
    return there.fetch_commits(home, str(folder(rig)))


def folder(rig: Rig) -> Path:
    (made := rig.folder / "copies").mkdir(mode=0o700, exist_ok=True)
    return made


@pytest.mark.parametrize(
    ("fault", "action"),
    [
        ("execution-upload-url: 401", FailureAction.REFUSED),
        ("execute: lost", FailureAction.OFFLINE),
        ("execution-logs: html", FailureAction.RETRY),
        ('execution-logs: json {"status": "failed", "logs": "no python", "cursor": 0}', FailureAction.RETRY),
        ("export-artifacts: 500 always", FailureAction.RETRY),
        ("download: cut", FailureAction.RETRY),
    ],
)
def test_failures(rig: Rig, repository: RepositoryThere, fault: str, action: FailureAction) -> None:
    """Nothing is left behind, and the same can be asked for again."""
    rig.emulator.faults.script(fault)
    with pytest.raises(StepFailed) as caught:
        fetch(rig, repository.home)
    assert (caught.value.action, caught.value.step) == (action, ApiStep.EXECUTION)
    assert os.listdir(folder(rig)) == []
    rig.emulator.faults.clear()
    assert len(fetch(rig, repository.home)[0].commits) == 1


def test_a_file_that_was_exchanged(rig: Rig, repository: RepositoryThere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its content is hashed here; another one is a failure."""

    def pack(folder: Path, file: BinaryIO) -> None:
        (folder / "copies/0").write_bytes((folder / "copies/0").read_bytes()[::-1])
        tar_gz(folder, file)

    exported(rig, monkeypatch, pack)
    with pytest.raises(StepFailed, match="the file with them is another one"):
        fetch(rig, repository.home)
    assert os.listdir(folder(rig)) == []
