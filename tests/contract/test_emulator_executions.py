"""An uploaded main.py runs beside the workspace, with limits, and without our environment."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from syncd.core.clock import SystemClock
from syncd.emulator.sandbox import KEPT_RUNS
from tests.archives import archive, member
from tests.contract.emulator_rig import GZIP, PATH, EmulatorRig, started_rig

NAME = {"execution_name": "work"}
DEADLINE_S = 60.0


def run(rig: EmulatorRig, code: str, name: str = "work", **files: str) -> None:
    """Upload and start a main.py."""
    body = {"execution_name": name}
    url = rig.api.post(f"{PATH}/execution-upload-url", json=body).json()["upload_url"]
    sources = {"main_py": code, **files}.items()
    content = archive(*(member(file.replace("_", "."), text.encode()) for file, text in sources))
    assert rig.bucket.put(url, content=content, headers=GZIP).status_code == 200
    started = rig.api.post(f"{PATH}/execute", json=body)
    assert started.json() == {"message": "Execution started", "execution_name": name}


def follow(rig: EmulatorRig, name: str = "work") -> tuple[str, str]:
    """Poll the log by its cursor to the end: the last status and all text."""
    clock, text, cursor = SystemClock(), "", 0
    deadline_s = clock.monotonic_s() + DEADLINE_S
    while clock.monotonic_s() < deadline_s:
        page: dict[str, Any] = rig.api.get(
            f"{PATH}/execution-logs", params={"execution_name": name, "cursor": str(cursor)}
        ).json()
        text, cursor = text + page["logs"], page["cursor"]
        if page["status"] in ("completed", "failed"):
            return page["status"], text
    raise AssertionError(f"still running: {text}")


def test_it_inherits_nothing(rig: EmulatorRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program gets no variable of the emulator's own environment, such as a key."""
    monkeypatch.setenv("KLAVIS_API_KEY", "secret")
    run(rig, "import os; print(sorted(os.environ))")
    status, text = follow(rig)
    assert status == "completed"
    assert "AGENT_WORKSPACE" in text
    assert "KLAVIS" not in text


def test_it_is_killed_after_its_timeout(tmp_path: Path) -> None:
    """A program that runs too long is killed with its children, and the log says why."""
    for timeout_s in (0.5, 2.0, 8.0):  # long enough for a busy machine to start it
        with started_rig(tmp_path / str(timeout_s)) as rig:
            rig.sandbox.execution_timeout_s = timeout_s
            run(
                rig,
                "import subprocess; child = subprocess.Popen(['sleep', '600'])\n"
                "print(child.pid, flush=True); child.wait()",
            )
            status, text = follow(rig)
        assert status == "failed"
        assert f"still running after {timeout_s:g} s" in text
        if text.split()[0].isdigit():
            break
    # The kill was sent, not awaited: the child is not ours. Its pidfd is readable once it is dead, reaped or not.
    with suppress(ProcessLookupError):
        child = os.pidfd_open(int(text.split()[0]))
        ended, _, _ = select.select([child], [], [], DEADLINE_S)
        os.close(child)
        assert ended, "its child still runs"


def test_it_ends_with_the_emulator(tmp_path: Path) -> None:
    """Closing does not wait for a running program, and leaves no process behind."""
    with started_rig(tmp_path) as rig:
        run(rig, "import os, time; print(os.getpid(), flush=True); time.sleep(600)")
        pid, cursor = "", 0
        while not pid.endswith("\n"):
            page = rig.api.get(f"{PATH}/execution-logs", params=NAME | {"cursor": str(cursor)}).json()
            pid, cursor = pid + page["logs"], page["cursor"]
        assert page["status"] == "running"
        assert rig.api.post(f"{PATH}/execute", json=NAME).status_code == 409
    assert not Path(f"/proc/{pid.strip()}").exists()


def test_a_log_is_bounded(rig: EmulatorRig) -> None:
    """Endless output fills neither the disk nor an answer."""
    run(rig, "print('x' * 20_000_000)")
    status, text = follow(rig)
    assert status == "completed"
    assert 8_000_000 < len(text) < 9_000_000


def test_artifacts_are_bounded(rig: EmulatorRig) -> None:
    """The newest executions' directories and objects are kept, older ones are deleted."""
    urls = {}
    for number in range(KEPT_RUNS + 2):
        name = f"work-{number}"
        run(rig, f"print({number})", name=name)
        rig.sandbox.wait()
        urls[name] = rig.api.post(f"{PATH}/export-artifacts", json={"execution_name": name}).json()["download_url"]
    gone = rig.api.post(f"{PATH}/export-artifacts", json={"execution_name": "work-0"})
    assert (gone.status_code, gone.json()) == (404, {"detail": "Execution work-0 has no artifacts any more"})
    answers = [rig.bucket.get(url).status_code for url in urls.values()]
    assert answers == [404, 404, *[200] * KEPT_RUNS]
    folders = [path for path in (rig.sandbox.folder / "executions").iterdir() if path.is_dir()]
    assert len(folders) <= KEPT_RUNS + 1
    logs = rig.api.get(f"{PATH}/execution-logs", params={"execution_name": "work-0"}).json()
    assert (logs["status"], logs["logs"]) == ("completed", "0\n")


def test_a_restart_deletes_directories(tmp_path: Path) -> None:
    """The next emulator on the same folder does not know the executions, and deletes their directories."""
    with started_rig(tmp_path) as rig:
        run(rig, "")
        follow(rig)
    assert list(tmp_path.glob("sandboxes/*/executions/*/main.py"))
    with started_rig(tmp_path) as rig:
        assert not list(tmp_path.glob("sandboxes/*/executions/*"))
        assert rig.api.get(f"{PATH}/execution-status", params=NAME).status_code == 404


def test_unknown_executions(rig: EmulatorRig) -> None:
    """Executing without an upload is 400; the status and log of an unknown execution are 404."""
    assert rig.api.post(f"{PATH}/execute", json=NAME).status_code == 400
    assert rig.api.get(f"{PATH}/execution-status", params=NAME).status_code == 404
    assert rig.api.get(f"{PATH}/execution-logs", params=NAME).status_code == 404
    assert rig.api.post(f"{PATH}/export-artifacts", json=NAME).status_code == 404
