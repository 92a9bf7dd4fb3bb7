"""Fetching the agent's commits by executions that really run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from syncd.core.interrupt import Interrupt
from syncd.core.waiter import Waiter
from syncd.emulator.request_log import RequestRecord
from syncd.remote.api import Api
from syncd.remote.artifacts import Artifacts
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.remote_job import JobRunner
from syncd.remote.target import Target
from syncd.sandbox.repository import agent_commits
from syncd.sandbox.repository.agent_commits import AgentCommits
from syncd.sandbox.repository.commits_report import SandboxCommits
from syncd.sandbox.repository.home_commit import recorded_home
from tests.agent_commits import RepositoryThere, note_home
from tests.integration.sync_rig import Rig, rigged
from tests.integration.test_look import exported, tar_gz

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as it:

        def wait(entry: RequestRecord) -> None:
            """Wait for the program, which runs in real time."""
            sandbox = it.emulator.sandbox(entry.sandbox or "")
            if sandbox is not None:
                sandbox.wait()

        it.emulator.faults.on("execution-logs", "before", wait)
        yield it


@pytest.fixture
def repository(rig: Rig) -> RepositoryThere:
    made = RepositoryThere(rig.sandbox.workspace)
    made.commit("one", {"a": b"ours", "b": b"longer"})
    made.commit("two", {"a": b"longer", "c": b"ours"})
    return made


def reader(rig: Rig) -> AgentCommits:
    waiter = Waiter(Interrupt(), rig.clock)
    api = Api(Target(rig.emulator.base_url, rig.sandbox.id, "us"), rig.key, rig.client, rig.clock)
    return AgentCommits(JobRunner(api, rig.client, waiter), Artifacts(api, rig.client, rig.clock), waiter)


def folder(rig: Rig) -> Path:
    (made := rig.folder / "copies").mkdir(mode=0o700, exist_ok=True)
    return made


def fetch(rig: Rig, home: str) -> SandboxCommits:
    return reader(rig).fetch(home, str(folder(rig)))


def contents(found: SandboxCommits) -> list[dict[str, str]]:
    return [
        {path: Path(entry.copy).read_text() for path, entry in commit.changes.items() if entry.copy}
        for commit in found.commits
    ]


def test_commits_are_fetched(rig: Rig, repository: RepositoryThere) -> None:
    """Each content once, by one execution and one export; a list needs no export."""
    assert contents(fetch(rig, repository.home)) == [{"a": "ours", "b": "longer"}, {"a": "longer", "c": "ours"}]
    assert len(os.listdir(folder(rig))) == 2
    expected = ["execution-upload-url", "execution-upload", "execute", "execution-logs"]
    assert rig.asked() == [*expected, "export-artifacts", "download"]
    found = reader(rig).list(repository.home, str(folder(rig)))
    assert [list(commit.changes) for commit in found.commits] == [["a", "b"], ["a", "c"]]
    assert rig.asked()[6:] == expected


@pytest.mark.parametrize(
    ("fault", "action"),
    [
        ("execution-upload-url: 401", FailureAction.REFUSED),
        ("execution-upload: 403", FailureAction.RETRY),
        ("execute: 500", FailureAction.RETRY),
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
    assert contents(fetch(rig, repository.home))[0] == {"a": "ours", "b": "longer"}


def test_a_program_that_ends_just_after_it_was_asked_for(rig: Rig, repository: RepositoryThere) -> None:
    """It has printed all and not ended yet when its files are asked for, and has ended right afterwards."""
    rig.emulator.faults.script("export-artifacts: 409")
    assert contents(fetch(rig, repository.home))[0] == {"a": "ours", "b": "longer"}
    assert rig.asked().count("export-artifacts") == 2


def test_a_report_that_is_not_to_be_trusted(
    rig: Rig, repository: RepositoryThere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a failure that names the report."""
    made: list[str] = []
    new_job = agent_commits.new_job

    def named(*arguments: object) -> object:
        job = new_job(*arguments)  # type: ignore[arg-type]
        made.append(job.name)
        state = ["", [], "", ""]
        row = [0, "a", "f", 0o644, 3 << 30, "A" * 43 + "=", 0]
        commit = ["1" * 40, "", "", 0, "", "", 0]
        rows = [["commits", [commit]], ["changes", [row]], ["done", [1, 1, 0, 0, 0, 0], state]]
        if len(made) == 1:
            rows = [["commits", [commit]], ["done", [2, 0, 0, 0, 0, 0], state]]
        logs = "".join(json.dumps([job.name, *row], separators=(",", ":")) + "\n" for row in rows)
        answer = {"status": "completed", "logs": logs, "cursor": 0}
        rig.emulator.faults.script(f"execution-logs: json {json.dumps(answer)}")
        return job

    monkeypatch.setattr(agent_commits, "new_job", named)
    for words in ("rows are missing", "more was copied"):
        with pytest.raises(StepFailed, match=f"the report of the commits there is invalid .{words}"):
            fetch(rig, repository.home)
    assert os.listdir(folder(rig)) == []


def test_a_copy_that_was_exchanged_is_none(
    rig: Rig, repository: RepositoryThere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its content is hashed here; the others have their copies."""

    def pack(folder: Path, file: BinaryIO) -> None:
        (folder / "copies/0").write_text("OURS")
        tar_gz(folder, file)

    exported(rig, monkeypatch, pack)
    assert contents(fetch(rig, repository.home)) == [{"b": "longer"}, {"a": "longer"}]


def test_a_check_ends_it(rig: Rig, repository: RepositoryThere) -> None:
    """What the check raises comes through, and no copy stays."""
    calls = iter(range(100))

    def check() -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reader(rig).fetch(repository.home, str(folder(rig)), check)
    assert os.listdir(folder(rig)) == []


@pytest.mark.parametrize(
    ("damage", "known"),
    [
        (lambda path: None, True),
        (lambda path: path.unlink(), False),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), False),
    ],
    ids=["whole", "missing", "damaged"],
)
def test_the_record_of_the_home_commit(tmp_path: Path, damage: Callable[[Path], None], known: bool) -> None:
    """It counts for its sandbox alone, if it is whole."""
    target = Target("https://api.example.com", "box", "us")
    note_home(tmp_path, target, "a" * 40)
    damage(tmp_path / "home-commit")
    assert recorded_home(str(tmp_path), target) == ("a" * 40 if known else "")
    note_home(tmp_path, target, "a" * 40)
    assert recorded_home(str(tmp_path), Target("https://api.example.com", "box", "asia")) == "a" * 40
    assert recorded_home(str(tmp_path), Target("https://api.example.com", "other", "us")) == ""
