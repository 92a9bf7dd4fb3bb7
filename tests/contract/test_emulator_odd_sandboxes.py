"""Sandboxes that work otherwise than most: without programs, with late ones, with another initialize or no dump."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clock import ScriptedClock
from tests.contract.emulator_rig import GZIP, PATH, EmulatorRig, archive, member, started_rig

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
