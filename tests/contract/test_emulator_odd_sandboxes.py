"""Sandboxes that work otherwise than most: without programs, with late ones, with another initialize or no dump."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clock import ScriptedClock
from tests.contract.emulator_rig import GZIP, PATH, EmulatorRig, archive, files, member, started_rig

NAME = {"execution_name": "work"}
MAIN = archive([member("main.py", b"print('ran')")])
OLD = {"mtime": 1000, "mode": 0o644}
TREE = archive(
    [
        member("d", type=b"5", mode=0o755, mtime=1000),
        member("d/f", b"1", **OLD),
        member("l", type=b"2", linkname="d/f", mtime=1000),
    ]
)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[EmulatorRig]:
    """A started emulator, in scripted time, with an execution uploaded."""
    with started_rig(tmp_path / "data", clock=ScriptedClock()) as rig:
        url = rig.api.post(f"{PATH}/execution-upload-url", json=NAME).json()["upload_url"]
        assert rig.bucket.put(url, content=MAIN, headers=GZIP).status_code == 200
        yield rig


def execute(rig: EmulatorRig) -> int:
    """Request the execution, and return the status of the answer."""
    return rig.api.post(f"{PATH}/execute", json=NAME).status_code


def logs(rig: EmulatorRig) -> tuple[str, str]:
    """Return the execution's status and output."""
    answer = rig.api.get(f"{PATH}/execution-logs", params=NAME).json()
    return answer["status"], answer["logs"]


def go_on(rig: EmulatorRig, seconds: float) -> None:
    """Let time pass, and wait for the programs that are due then."""
    clock = rig.clock
    assert isinstance(clock, ScriptedClock)
    clock.go_on(seconds)
    rig.sandbox.wait()


def test_failed_programs(rig: EmulatorRig) -> None:
    """An execution that fails has failed when `execute` is answered, without output; the next one may run."""
    rig.emulator.faults.script("execute: failed x2")
    for _ in range(2):
        assert execute(rig) == 200
        assert logs(rig) == ("failed", "")
    assert rig.api.post(f"{PATH}/export-artifacts", json=NAME).status_code == 200
    assert execute(rig) == 200
    go_on(rig, 0)
    assert logs(rig) == ("completed", "ran\n")


def test_pending_programs(rig: EmulatorRig) -> None:
    """A pending execution does not begin by itself, whatever time it is; a test can begin it."""
    rig.emulator.faults.script("execute: pending")
    assert execute(rig) == 200
    go_on(rig, 1e9)
    assert logs(rig) == ("pending", "")
    assert execute(rig) == 409
    assert rig.api.post(f"{PATH}/export-artifacts", json=NAME).status_code == 409
    rig.sandbox.start_held()
    rig.sandbox.wait()
    assert logs(rig) == ("completed", "ran\n")


def test_late_programs(rig: EmulatorRig) -> None:
    """A late execution is pending until its time has passed, and then runs."""
    rig.emulator.faults.script("execute: late 30")
    assert execute(rig) == 200
    go_on(rig, 29.9)
    assert logs(rig) == ("pending", "")
    go_on(rig, 0.1)
    assert logs(rig) == ("completed", "ran\n")


@pytest.mark.parametrize("path", ["", "/initialize"])
def test_any_request_tells_a_moved_clock(rig: EmulatorRig, path: str) -> None:
    """In scripted time a late execution begins with the next request for its sandbox, whatever that is."""
    clock = rig.clock
    assert isinstance(clock, ScriptedClock)
    rig.upload(files(a=b"1"))
    rig.emulator.faults.script("execute: late 1e6")
    assert execute(rig) == 200
    clock.go_on(1e6)
    execution = rig.sandbox.execution("work")
    assert execution is not None
    assert rig.api.request("POST" if path else "GET", f"{PATH}{path}").status_code == 200
    execution.wait()
    assert logs(rig) == ("completed", "ran\n")


def test_a_late_program_needs_no_request(tmp_path: Path) -> None:
    """By a real clock a late execution begins by itself, also if its client has given up."""
    with started_rig(tmp_path / "data") as rig:
        url = rig.api.post(f"{PATH}/execution-upload-url", json=NAME).json()["upload_url"]
        assert rig.bucket.put(url, content=MAIN, headers=GZIP).status_code == 200
        rig.emulator.faults.script("execute: late 0.05")
        assert execute(rig) == 200
        execution = rig.sandbox.execution("work")
        assert execution is not None
        execution.wait()
        assert logs(rig) == ("completed", "ran\n")


@pytest.mark.parametrize("fault", ["execute: pending", "execute: late 1e6"])
def test_what_is_pending_ends_with_a_reset(rig: EmulatorRig, fault: str) -> None:
    """A reset ends what is pending: it never runs, and its name is free."""
    rig.emulator.faults.script(fault)
    assert execute(rig) == 200
    execution = rig.sandbox.execution("work")
    assert execution is not None
    assert rig.api.post(f"{PATH}/reset").status_code == 200
    execution.begin()
    assert execution.status == "failed"
    assert rig.api.get(f"{PATH}/execution-logs", params=NAME).status_code == 404
    assert not list((rig.sandbox.folder).glob("executions/*"))
    assert execute(rig) == 200


@pytest.mark.parametrize("status", [404, 501])
def test_no_dump(rig: EmulatorRig, status: int) -> None:
    """A sandbox without a dump answers a status; its programs run."""
    rig.emulator.faults.script(f"dump: {status} always")
    assert [rig.api.get(f"{PATH}/dump").status_code for _ in range(2)] == [status] * 2
    assert execute(rig) == 200
    go_on(rig, 0)
    assert logs(rig)[0] == "completed"


def test_mtimes_of_the_archive(rig: EmulatorRig) -> None:
    """Extraction keeps the archive's mtimes, of a directory too."""
    assert rig.initialize(TREE).status_code == 200
    assert [os.lstat(rig.sandbox.workspace / name).st_mtime for name in ("d", "d/f")] == [1000] * 2


def test_mtimes_of_extraction(rig: EmulatorRig) -> None:
    """With `new-mtimes` all that is extracted is new, however old it is in the archive; modes are the archive's."""
    rig.emulator.faults.script("initialize: new-mtimes x2")
    for _ in range(2):
        assert rig.initialize(TREE).status_code == 200
        found = [os.lstat(rig.sandbox.workspace / name) for name in ("d", "d/f", "l")]
        assert all(status.st_mtime > 1_000_000 for status in found)
        assert found[1].st_mode & 0o777 == 0o644
    assert rig.initialize(TREE).status_code == 200
    assert os.stat(rig.sandbox.workspace / "d/f").st_mtime == 1000


def test_changes_of_the_work_add_up(rig: EmulatorRig) -> None:
    """A sandbox that works otherwise has failures like any: a change counts when the work is done."""
    rig.initialize(files(a=b"1", b=b"1"))
    rig.emulator.faults.script(
        "initialize: replace", "initialize: new-mtimes", "initialize: 503", "initialize: 504 after"
    )
    assert rig.api.post(f"{PATH}/initialize").status_code == 503
    assert rig.tree() == {"a": b"1", "b": b"1"}
    assert rig.initialize(archive([member("b", b"2", **OLD)])).status_code == 504
    assert rig.tree() == {"b": b"2"}
    assert os.stat(rig.sandbox.workspace / "b").st_mtime > 1_000_000
    assert rig.initialize(archive([member("a", b"3", **OLD)])).status_code == 200
    assert rig.tree() == {"a": b"3", "b": b"2"}
    assert [entry.fault for entry in rig.emulator.request_log if entry.op == "initialize"] == [
        None,
        "503",
        "504 after, new-mtimes, replace",
        None,
    ]


def test_a_rejected_request_replaces_nothing(rig: EmulatorRig) -> None:
    """An initialize without an archive leaves the workspace alone, in a sandbox that replaces too."""
    rig.initialize(files(a=b"1"))
    rig.emulator.faults.script("initialize: replace always")
    assert rig.api.post(f"{PATH}/initialize?region=asia").status_code == 400
    assert rig.tree() == {"a": b"1"}


def test_the_rate_limit(rig: EmulatorRig) -> None:
    """Requests above the limit are answered 429 with a Retry-After, and nothing is done; after that time they pass."""
    rig.emulator.rate_limit = 2
    assert [rig.api.post(f"{PATH}/reset").status_code for _ in range(2)] == [200, 200]
    refused = rig.api.post("/local-sandbox", json={"server_names": "ALL"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json() == {"detail": "Rate limit exceeded: 2 per 1 second"}
    go_on(rig, 0.9)
    assert rig.api.get(PATH).status_code == 429
    go_on(rig, 0.1)
    assert [rig.api.get(PATH).status_code for _ in range(3)] == [200, 200, 429]
    rig.emulator.rate_limit = 0
    assert rig.api.get("/local-sandbox").json()["total_count"] == 1


def test_who_is_not_limited(tmp_path: Path) -> None:
    """The limit is the key's: a wrong key does not use it up, and the bucket does not count."""
    with started_rig(tmp_path / "data", rate_limit=1, clock=ScriptedClock()) as rig:
        wrong = {"Authorization": "Bearer wrong"}
        assert [rig.api.get(PATH, headers=wrong).status_code for _ in range(3)] == [401] * 3
        url = rig.upload_url()
        assert [rig.bucket.put(url, content=b"1", headers=GZIP).status_code for _ in range(3)] == [200] * 3
        assert rig.api.get(PATH, headers=wrong).status_code == 401
        assert rig.api.get(PATH).status_code == 429
