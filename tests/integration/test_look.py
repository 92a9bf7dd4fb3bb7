"""Looking at the sandbox's workspace by executions that really run."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import pytest
from msgspec.structs import replace

from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.model.entry import Kind, SeenEntry
from syncd.remote.api import Api
from syncd.remote.bucket import Dump
from syncd.remote.failure import FailureAction, RetrySettings, StepFailed
from syncd.remote.target import Target
from syncd.sandbox.agent_repository import AgentRepository
from syncd.sandbox.executions import TIMEOUT_S, Executions
from syncd.sandbox.look_by_dump import look_in_archive
from syncd.sandbox.look_request import LookItem, LookRequest, LookResult
from syncd.sandbox.program import printed
from syncd.store.state_db import StateDb
from tests.integration.sync_rig import Rig
from tests.looks import COMPARE, EXISTS, FETCH, REMOVE, a_file, item
from tests.repositories import RepositoryThere

ODD = os.fsdecode(b"caf\xe9 \n-rf")


@pytest.fixture
def rig(bare: Rig) -> Rig:
    bare.wait_for_programs()
    return bare


def target(rig: Rig) -> Target:
    return Target(rig.emulator.base_url, rig.sandbox.id, "us")


def executions(rig: Rig, state: Path | None = None) -> Executions:
    """Return the executions of a new process, with the state in that folder."""
    if state is None:
        (state := rig.folder / "state").mkdir(exist_ok=True)
    waiter, api = Waiter(Interrupt(), rig.clock), Api(target(rig), rig.key, rig.client)
    return Executions(api, rig.client, waiter, StateDb(str(state)), target(rig))


def run_look(executions: Executions, request: LookRequest, folder: str) -> LookResult:
    return executions.finish_look(executions.start_look(request), folder)


def copies(rig: Rig) -> Path:
    (folder := rig.folder / "copies").mkdir(mode=0o700, exist_ok=True)
    return folder


def look(rig: Rig, items: Mapping[str, LookItem], **more: object) -> LookResult:
    """Return what a new process finds. Raises `StepFailed`, also if it cannot fetch what differs."""
    result = run_look(executions(rig), LookRequest(items, **more), str(copies(rig)))  # type: ignore[arg-type]
    if result.unfetched is not None:
        raise result.unfetched
    return result


def fetched(result: LookResult) -> dict[str, str]:
    found = {**result.differing, **result.new}
    return {path: Path(entry.copy).read_text() for path, entry in found.items() if entry.copy}


def pending(rig: Rig, state: Path | None = None) -> list[str]:
    """Return the removal that is recorded as possibly running, if there is one."""
    removal = executions(rig, state).pending
    return [] if removal is None else [removal.name]


def exported(rig: Rig, monkeypatch: pytest.MonkeyPatch, pack: Callable[[Path, BinaryIO], None]) -> None:
    """Have the emulator export an execution's folder in another way."""
    monkeypatch.setattr(rig.sandbox, "export", lambda execution, file: pack(Path(execution.folder), file))


def tar_gz(folder: Path, file: BinaryIO) -> None:
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        tar.add(folder, arcname=".")


def test_a_long_report_is_exported(rig: Rig) -> None:
    """With its copies, by one request."""
    for number in range(2000):
        rig.agent.write(f"{number:0150}", "")
    rig.agent.write("a", "ours")
    result = look(rig, {}, find_new=True)
    assert len(result.new) == 2001
    assert fetched(result)["a"] == "ours"
    assert rig.asked().count("export-artifacts") == 1


def test_the_polls_are_few(rig: Rig) -> None:
    """Five within the first five seconds, then one every two seconds, until the time is over."""
    rig.emulator.faults.script('execution-logs: json {"status": "running"} always')
    with pytest.raises(StepFailed, match=f"longer than {TIMEOUT_S:.0f} s") as caught:
        run_look(executions(rig), LookRequest({}), str(copies(rig)))
    assert caught.value.action is FailureAction.RETRY
    times = [sum(rig.clock.slept[:count]) for count in range(1, len(rig.clock.slept) + 1)]
    assert len([time for time in times if time <= 5]) == 5
    assert times[-1] == pytest.approx(TIMEOUT_S)
    assert len(times) - 1 <= rig.asked().count("execution-logs") <= len(times) <= 64  # the last one may come at the end


def test_the_log_of_an_ended_program_has_its_end_where_nothing_more_is_in_it(rig: Rig) -> None:
    """However far its cursor goes on."""
    rig.emulator.faults.script('execution-logs: json {"status": "completed", "logs": "", "cursor": 7}')
    with pytest.raises(StepFailed):
        run_look(executions(rig), LookRequest({}), str(copies(rig)))
    assert rig.asked().count("execution-logs") == 1


def test_a_look_of_another_kind_of_failure(rig: Rig) -> None:
    """A program that ends without a report, and one whose report is not to be trusted, in its line or in its file."""
    rig.emulator.faults.script('execution-logs: json {"status": "failed", "logs": "no python", "cursor": 0} always')
    with pytest.raises(StepFailed, match=r"the look at the files there did not come to its end \(no python\)"):
        look(rig, {})
    rig.emulator.faults.clear()
    looking = executions(rig)
    started = looking.start_look(LookRequest({"a": item(FETCH, a_file(b"ours"))}))
    rig.sandbox.wait()
    name, answer = started.running.name, {"status": "completed", "cursor": 0}
    for logs, words in (
        (printed(name, {"ended_s": 1}, str(rig.folder)), "it does not tell of what was asked"),
        (f"{name}=5 {'0' * 64} \n", "no report.json is as the program wrote it"),
    ):
        rig.emulator.faults.script(f"execution-logs: json {json.dumps({**answer, 'logs': logs})} always")
        with pytest.raises(StepFailed, match=rf"the report of the look at the files there is invalid \({words}"):
            looking.finish_look(started, str(copies(rig)))
        rig.emulator.faults.clear()
    assert os.listdir(copies(rig)) == []


@pytest.mark.parametrize(
    "fault",
    [
        "export-artifacts: 503 always",
        "export-artifacts: reset always",
        "export-artifacts: html always",
        'export-artifacts: json {"download_url": "http://elsewhere.example/x", "expires_in_minutes": 1} always',
        "download: cut",
        "download: 404 always",
    ],
)
def test_copies_that_do_not_come(rig: Rig, fault: str) -> None:
    """Nothing of them stays here; the removals of that look were made."""
    rig.agent.write("changed", "ours")
    rig.agent.write("a", "ours")
    rig.emulator.faults.script(fault)
    asked = {"changed": item(FETCH, a_file(b"OURS")), "a": item(REMOVE, a_file(b"ours"))}
    with pytest.raises(StepFailed):
        look(rig, asked)
    assert list(copies(rig).iterdir()) == []
    assert rig.arrived() == {"changed": "ours"}
    rig.emulator.faults.clear()
    assert fetched(look(rig, {"changed": item(FETCH)})) == {"changed": "ours"}


def test_a_copy_that_was_exchanged_is_none(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its content is hashed here; that path is "still being written", the others have their copies."""

    def pack(folder: Path, file: BinaryIO) -> None:
        (folder / "copies/0").write_text("OURS")
        tar_gz(folder, file)

    exported(rig, monkeypatch, pack)
    rig.agent.write("a", "ours")
    rig.agent.write("longer", "ours and more")
    result = look(rig, {}, find_new=True)
    assert (result.new["a"].unstable, result.new["a"].copy) == (True, "")
    assert fetched(result) == {"longer": "ours and more"}


def test_an_export_that_is_too_large(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The download ends there."""
    monkeypatch.setattr("syncd.archive.exported_files._OVERHEAD_BYTES", 0)
    monkeypatch.setattr("syncd.sandbox.protocol._OTHER_BYTES", 2_000)

    def pack(folder: Path, file: BinaryIO) -> None:
        (folder / "noise").write_bytes(os.urandom(200_000))
        tar_gz(folder, file)

    exported(rig, monkeypatch, pack)
    rig.agent.write("a", "ours")
    with pytest.raises(StepFailed, match="it is larger than"):
        look(rig, {"a": item(FETCH)}, most_copied_bytes=100_000)
    assert os.listdir(copies(rig)) == []


def test_a_clock_that_was_guessed_wrong(rig: Rig) -> None:
    """The first removal finds out, and is made once more; the next ones know."""
    looking = executions(rig)
    rig.clock.wall -= 86_400.0  # this machine's, after the sandbox began
    for times, name in enumerate(("a", "b"), start=2):
        rig.agent.write(name, "ours")
        found = run_look(looking, LookRequest({name: item(REMOVE, a_file(b"ours"))}), str(copies(rig)))
        assert (found.removed, rig.asked().count("execute")) == ((name,), times)
    assert looking.pending is None


def test_settled_where_the_sandbox_is_gone(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """The wait does not last for ever."""
    rig.sandbox.hold()
    executions(rig).start_look(LookRequest({"a": item(REMOVE)}))
    rig.emulator.faults.script("execution-upload-url: 403 always")
    with pytest.raises(StepFailed, match="key"):
        executions(rig).settle(["a"])
    rig.emulator.faults.clear()
    rig.emulator.faults.script("execution-upload-url: 422 always")
    with pytest.raises(StepFailed, match="has not ended"):  # one refusal may be a mistake
        executions(rig).settle(["a"])
    rig.clock.go_on(400)
    executions(rig).settle(["a"])
    assert "cannot check if a removal" in caplog.text
    assert pending(rig) == []


def test_a_dump_tells_the_same(rig: Rig) -> None:
    """A sandbox that runs no programs is looked at by its archive, with the same outcome but for removals."""
    top = rig.sandbox.workspace
    for path in ("same", "changed", "d/new", ODD, ".git/x", "node_modules/x", "e/node_modules/y", "existing", "stays"):
        rig.agent.write(path, "ours")
    (top / "d/empty").mkdir()
    (top / "ln").symlink_to("../outside")
    (top / "program").write_text("ours")
    (top / "program").chmod(0o755)
    os.mkfifo(top / "fifo")
    os.link(top / "same", top / "another name")
    items = {
        "same": item(FETCH, a_file(b"ours")),
        "changed": item(FETCH, a_file(b"OURS")),
        "gone": item(COMPARE, a_file(b"ours")),
        "program": item(FETCH, a_file(b"ours")),
        "stays": item(REMOVE, a_file(b"other")),
        "existing": item(EXISTS),
        "missing": item(EXISTS),
        "removed": item(REMOVE, a_file(b"ours")),
        "fifo": item(FETCH, a_file(b"ours")),
        "ln/behind": item(COMPARE, a_file(b"ours")),
    }
    request = LookRequest(items, find_new=True, pruned_names=["node_modules"])
    by_program = run_look(executions(rig), request, str(copies(rig)))
    dump = Dump(Api(target(rig), rig.key, rig.client), rig.client, RetrySettings(1, 8, 60))
    by_dump = dump.read_once(lambda packed: look_in_archive(packed, request, str(copies(rig)), lambda: None))
    assert (
        fetched(by_program)
        == fetched(by_dump)
        == dict.fromkeys(("changed", "program", "d/new", ODD, "another name"), "ours")
    )

    def plain(entries: Mapping[str, SeenEntry]) -> dict[str, SeenEntry]:
        """Without the fields that an archive has otherwise: the paths of copies, unread digests, lengths of no file."""
        return {
            path: replace(
                entry,
                copy="",
                digest=entry.digest if entry.copy else b"",
                size_bytes=entry.size_bytes if entry.kind is Kind.FILE else 0,
            )
            for path, entry in entries.items()
        }

    assert plain(by_dump.differing) == plain(by_program.differing)
    assert plain(by_dump.new) == plain(by_program.new)
    assert sorted(by_dump.pruned) == sorted(by_program.pruned) == [".git", "e/node_modules", "node_modules"]
    assert (by_dump.removed, by_dump.missing) == (by_program.removed, by_program.missing) == (("removed",), 1)


# -- the agent's commits


def test_a_file_of_commits_that_was_exchanged(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its content is hashed here; another one is a failure, which leaves nothing behind."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    repository = RepositoryThere(rig.sandbox.workspace)
    repository.commit("one", {"a": b"ours", "b": b"longer"})

    def pack(folder: Path, file: BinaryIO) -> None:
        (folder / "copies/0").write_bytes((folder / "copies/0").read_bytes()[::-1])
        tar_gz(folder, file)

    exported(rig, monkeypatch, pack)
    waiter, db = Waiter(Interrupt(), rig.clock), StateDb(str(copies(rig)))
    there = AgentRepository(lambda: None, executions(rig), target(rig), db, waiter)
    with pytest.raises(StepFailed, match="the file with them is another one"):
        there.fetch_commits(repository.home, str(copies(rig)))
    assert os.listdir(copies(rig)) == []
