"""An uploaded main.py runs beside the workspace, with limits, and without our environment."""

from __future__ import annotations

import io
import os
import select
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from syncd.core.clock import SystemClock
from tests.contract.emulator_rig import GZIP, PATH, EmulatorRig, archive, member, started_rig

NAME = {"execution_name": "work"}
DEADLINE_S = 20.0


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[EmulatorRig]:
    """A started emulator."""
    with started_rig(tmp_path / "data") as rig:
        yield rig


def run(rig: EmulatorRig, code: str, **files: str) -> None:
    """Upload and start a main.py."""
    url = rig.api.post(f"{PATH}/execution-upload-url", json=NAME).json()["upload_url"]
    content = archive(
        member(name.replace("_", "."), text.encode()) for name, text in {"main_py": code, **files}.items()
    )
    assert rig.bucket.put(url, content=content, headers=GZIP).status_code == 200
    started = rig.api.post(f"{PATH}/execute", json=NAME)
    assert started.json() == {"message": "Execution started", "execution_name": "work"}


def follow(rig: EmulatorRig) -> tuple[str, str]:
    """Poll the log by its cursor to the end: the last status and all text."""
    clock, text, cursor = SystemClock(), "", 0
    deadline_s = clock.monotonic_s() + DEADLINE_S
    while clock.monotonic_s() < deadline_s:
        page: dict[str, Any] = rig.api.get(f"{PATH}/execution-logs", params=NAME | {"cursor": str(cursor)}).json()
        text, cursor = text + page["logs"], page["cursor"]
        if page["status"] in ("completed", "failed"):
            return page["status"], text
    raise AssertionError(f"still running: {text}")


def test_it_works_in_the_workspace(rig: EmulatorRig) -> None:
    """A program finds the workspace by AGENT_WORKSPACE and can remove a file there; its files are in its folder."""
    rig.initialize(archive([member("a", b"1"), member("b", b"2")]))
    run(
        rig,
        "import os, pathlib\n"
        "pathlib.Path(os.environ['AGENT_WORKSPACE'], 'a').unlink()\n"
        "print(pathlib.Path('note.txt').read_text(), 'naïve')\n",
        note_txt="mine",
    )
    assert follow(rig) == ("completed", "mine naïve\n")
    assert rig.tree() == {"b": b"2"}
    assert rig.api.get(f"{PATH}/execution-status", params=NAME).json() == {"status": "completed"}


def test_it_inherits_nothing(rig: EmulatorRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program gets no variable of the emulator's own environment, such as a key."""
    monkeypatch.setenv("KLAVIS_API_KEY", "secret")
    run(rig, "import os; print(sorted(os.environ))")
    status, text = follow(rig)
    assert status == "completed"
    assert "AGENT_WORKSPACE" in text
    assert "KLAVIS" not in text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(3)", ""),
        ("print(1 / 0)", "ZeroDivisionError"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", ""),
    ],
)
def test_it_can_fail(rig: EmulatorRig, code: str, said: str) -> None:
    """An exit status other than 0 is `failed`, and stderr is in the log."""
    run(rig, code)
    status, text = follow(rig)
    assert (status, said in text) == ("failed", True)


def test_it_is_killed_after_its_timeout(tmp_path: Path) -> None:
    """A program that runs too long is killed with its children, and the log says why."""
    for timeout_s in (0.5, 2.0, 8.0):  # long enough for a busy machine to start it
        with started_rig(tmp_path / str(timeout_s), execution_timeout_s=timeout_s) as rig:
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


def test_it_can_run_again(rig: EmulatorRig) -> None:
    """A second run of the same name has only the newly uploaded files."""
    run(rig, "print('one')", old_txt="")
    assert follow(rig) == ("completed", "one\n")
    run(rig, "import os; print(sorted(os.listdir()))")
    assert follow(rig) == ("completed", "['main.py']\n")


def test_export(rig: EmulatorRig) -> None:
    """They are the execution's folder as a zip."""
    run(rig, "open('result.txt', 'w').write('42')")
    follow(rig)
    exported = rig.api.post(f"{PATH}/export-artifacts", json=NAME).json()
    content = rig.bucket.get(exported["download_url"]).content
    with zipfile.ZipFile(io.BytesIO(content)) as artifacts:
        assert artifacts.namelist() == ["main.py", "result.txt"]
        assert artifacts.read("result.txt") == b"42"


def test_unknown_executions(rig: EmulatorRig) -> None:
    """Executing without an upload is 400; the status and log of an unknown execution are 404."""
    assert rig.api.post(f"{PATH}/execute", json=NAME).status_code == 400
    assert rig.api.get(f"{PATH}/execution-status", params=NAME).status_code == 404
    assert rig.api.get(f"{PATH}/execution-logs", params=NAME).status_code == 404
    assert rig.api.post(f"{PATH}/export-artifacts", json=NAME).status_code == 404


def test_without_a_main(rig: EmulatorRig) -> None:
    """An archive without a main.py fails and says so; an invalid one is refused."""
    url = rig.api.post(f"{PATH}/execution-upload-url", json=NAME).json()["upload_url"]
    rig.bucket.put(url, content=archive([member("other.py", b"")]), headers=GZIP)
    assert rig.api.post(f"{PATH}/execute", json=NAME).status_code == 200
    status, text = follow(rig)
    assert status == "failed"
    assert "main.py" in text
    rig.bucket.put(url, content=b"none", headers=GZIP)
    assert rig.api.post(f"{PATH}/execute", json=NAME).status_code == 500
