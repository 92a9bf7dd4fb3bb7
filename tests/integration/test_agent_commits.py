"""Fetching the pack of the agent's commits by executions that really run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from syncd.core.waiter import Interrupt, Waiter
from syncd.remote.api import Api
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.remote_job import JobRunner
from syncd.remote.target import Target
from syncd.sandbox.repository.agent_repository import (
    AgentRepository,
    SandboxCommits,
    commits_of,
)
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


def fetch(rig: Rig, home: str, check: Callable[[], None] = lambda: None) -> tuple[SandboxCommits, str]:
    waiter = Waiter(Interrupt(), rig.clock)
    target = Target(rig.emulator.base_url, rig.sandbox.id, "us")
    job_runner = JobRunner(Api(target, rig.key, rig.client), rig.client, waiter)
    there = AgentRepository(lambda: None, job_runner, target, StateDb(str(folder(rig))), waiter)
    return there.fetch_commits(home, str(folder(rig)), check)


def folder(rig: Rig) -> Path:
    (made := rig.folder / "copies").mkdir(mode=0o700, exist_ok=True)
    return made


def test_a_pack_is_fetched(rig: Rig, repository: RepositoryThere) -> None:
    """By one execution and one export; without commits there is none."""
    found, pack = fetch(rig, repository.home)
    assert found.commits == (f"{repository.id_of('HEAD')} {repository.home}",)
    assert Path(pack).read_bytes()[:4] == b"PACK"
    assert os.listdir(folder(rig)) == [Path(pack).name]
    expected = ["execution-upload-url", "execution-upload", "execute", "execution-logs"]
    assert rig.asked() == [*expected, "export-artifacts", "download"]
    assert fetch(rig, repository.id_of("HEAD"))[1] == ""
    assert rig.asked()[6:] == expected


@pytest.mark.parametrize(
    ("fault", "action"),
    [
        ("execution-upload-url: 401", FailureAction.REFUSED),
        ("execute: lost", FailureAction.OFFLINE),
        ("execution-logs: html", FailureAction.RETRY),
        ('execution-logs: json {"status": "failed", "logs": "no python", "cursor": 0}', FailureAction.RETRY),
        ("export-artifacts: 500", FailureAction.RETRY),
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


ID, OTHER, DIGEST = "1" * 40, "2" * 40, "a" * 64


@pytest.mark.parametrize(
    "values",
    [
        [],
        {},
        *(
            {"state": "done", "commits": [each]}
            for each in ("", "1" * 39, f"{ID} ", f"{ID} {ID} {ID}", f"{ID}\n", "--all", "1" * 64)
        ),
        {"state": "done", "commits": [ID] * 1001},
        *(
            {"state": "done", "pack": each}
            for each in (["1", ""], [-1, ""], [3 << 30, ""], [1], [1, "A" * 64], [1, "a" * 64 + "\n"])
        ),
        {"state": "done", "branches": [["x"]]},
        {"state": "done", "branches": [["\udcff\0", 1]]},
        {"state": "done", "unlisted": 1 << 50},
        {"state": "done", "under_way": ["x"] * 11},
        {"state": "done", "more": 1},
    ],
    ids=repr,
)
def test_a_report_that_no_program_makes(values: Any) -> None:
    """Nothing in it is trusted."""
    with pytest.raises(ValueError, match=r"."):
        commits_of(json.dumps(values).encode())


def test_a_pack_that_was_exchanged(rig: Rig, repository: RepositoryThere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its content is hashed here; another one is a failure."""

    def pack(folder: Path, file: BinaryIO) -> None:
        (folder / "copies/0").write_bytes((folder / "copies/0").read_bytes()[::-1])
        tar_gz(folder, file)

    exported(rig, monkeypatch, pack)
    with pytest.raises(StepFailed, match="the pack is another one"):
        fetch(rig, repository.home)
    assert os.listdir(folder(rig)) == []
