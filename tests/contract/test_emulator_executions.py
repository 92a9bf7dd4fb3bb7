"""An uploaded main.py really runs beside the workspace, bounded, and with nothing of ours in its environment."""

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
from tests.contract.emulator_rig import GZIP, PATH, Stage, archive, member, staged

NAME = {"execution_name": "work"}
DEADLINE_S = 20.0


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A fresh emulator."""
    with staged(tmp_path / "data") as stage:
        yield stage


def run(stage: Stage, code: str, **files: str) -> None:
    """Uploads and starts a main.py."""
    url = stage.api.post(f"{PATH}/execution-upload-url", json=NAME).json()["upload_url"]
    content = archive(
        member(name.replace("_", "."), text.encode()) for name, text in {"main_py": code, **files}.items()
    )
    assert stage.bucket.put(url, content=content, headers=GZIP).status_code == 200
    started = stage.api.post(f"{PATH}/execute", json=NAME)
    assert started.json() == {"message": "Execution started", "execution_name": "work"}


def follow(stage: Stage) -> tuple[str, str]:
    """Polls the log by its cursor to the end: the last status and all text."""
    clock, text, cursor = SystemClock(), "", 0
    deadline_s = clock.monotonic_s() + DEADLINE_S
    while clock.monotonic_s() < deadline_s:
        page: dict[str, Any] = stage.api.get(f"{PATH}/execution-logs", params=NAME | {"cursor": str(cursor)}).json()
        text, cursor = text + page["logs"], page["cursor"]
        if page["status"] in ("completed", "failed"):
            return page["status"], text
    raise AssertionError(f"still running: {text}")


def test_it_works_in_the_workspace(stage: Stage) -> None:
    """It finds the workspace by AGENT_WORKSPACE and can remove a file there; its own files lie around it."""
    stage.initialize(archive([member("a", b"1"), member("b", b"2")]))
    run(
        stage,
        "import os, pathlib\n"
        "pathlib.Path(os.environ['AGENT_WORKSPACE'], 'a').unlink()\n"
        "print(pathlib.Path('note.txt').read_text(), 'naïve')\n",
        note_txt="mine",
    )
    assert follow(stage) == ("completed", "mine naïve\n")
    assert stage.tree() == {"b": b"2"}
    assert stage.api.get(f"{PATH}/execution-status", params=NAME).json() == {"status": "completed"}


def test_it_inherits_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the emulator's own environment is visible, a key least of all."""
    monkeypatch.setenv("KLAVIS_API_KEY", "secret")
    run(stage, "import os; print(sorted(os.environ))")
    status, text = follow(stage)
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
def test_it_can_fail(stage: Stage, code: str, said: str) -> None:
    """An exit status other than 0 is `failed`, and what it wrote to stderr is in the log."""
    run(stage, code)
    status, text = follow(stage)
    assert (status, said in text) == ("failed", True)


def test_it_ends_with_its_time(tmp_path: Path) -> None:
    """What runs too long is killed with its children, and the log says why."""
    for timeout_s in (0.5, 2.0, 8.0):  # in which a busy machine begins with it
        with staged(tmp_path / str(timeout_s), execution_timeout_s=timeout_s) as stage:
            run(
                stage,
                "import subprocess; child = subprocess.Popen(['sleep', '600'])\n"
                "print(child.pid, flush=True); child.wait()",
            )
            status, text = follow(stage)
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
    """Closing does not wait for what runs, and leaves no process behind."""
    with staged(tmp_path) as stage:
        run(stage, "import os, time; print(os.getpid(), flush=True); time.sleep(600)")
        pid, cursor = "", 0
        while not pid.endswith("\n"):
            page = stage.api.get(f"{PATH}/execution-logs", params=NAME | {"cursor": str(cursor)}).json()
            pid, cursor = pid + page["logs"], page["cursor"]
        assert page["status"] == "running"
        assert stage.api.post(f"{PATH}/execute", json=NAME).status_code == 409
    assert not Path(f"/proc/{pid.strip()}").exists()


def test_a_log_is_bounded(stage: Stage) -> None:
    """Output without end fills neither the disk nor an answer."""
    run(stage, "print('x' * 20_000_000)")
    status, text = follow(stage)
    assert status == "completed"
    assert 8_000_000 < len(text) < 9_000_000


def test_it_can_run_again(stage: Stage) -> None:
    """A second run of the same name starts with the newly uploaded files alone."""
    run(stage, "print('one')", old_txt="")
    assert follow(stage) == ("completed", "one\n")
    run(stage, "import os; print(sorted(os.listdir()))")
    assert follow(stage) == ("completed", "['main.py']\n")


def test_what_it_leaves_is_exported(stage: Stage) -> None:
    """The artifacts are the execution's folder as a zip."""
    run(stage, "open('result.txt', 'w').write('42')")
    follow(stage)
    exported = stage.api.post(f"{PATH}/export-artifacts", json=NAME).json()
    content = stage.bucket.get(exported["download_url"]).content
    with zipfile.ZipFile(io.BytesIO(content)) as artifacts:
        assert artifacts.namelist() == ["main.py", "result.txt"]
        assert artifacts.read("result.txt") == b"42"


def test_what_was_never_there(stage: Stage) -> None:
    """Executing without an upload is 400; the status and log of what never ran are 404."""
    assert stage.api.post(f"{PATH}/execute", json=NAME).status_code == 400
    assert stage.api.get(f"{PATH}/execution-status", params=NAME).status_code == 404
    assert stage.api.get(f"{PATH}/execution-logs", params=NAME).status_code == 404
    assert stage.api.post(f"{PATH}/export-artifacts", json=NAME).status_code == 404


def test_without_a_main(stage: Stage) -> None:
    """An archive without a main.py fails and says so; one that is none is refused."""
    url = stage.api.post(f"{PATH}/execution-upload-url", json=NAME).json()["upload_url"]
    stage.bucket.put(url, content=archive([member("other.py", b"")]), headers=GZIP)
    assert stage.api.post(f"{PATH}/execute", json=NAME).status_code == 200
    status, text = follow(stage)
    assert status == "failed"
    assert "main.py" in text
    stage.bucket.put(url, content=b"none", headers=GZIP)
    assert stage.api.post(f"{PATH}/execute", json=NAME).status_code == 500
