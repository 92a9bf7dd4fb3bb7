"""A removal without an answer, or a slow one, never removes what was put there after it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import httpx
import pytest

from syncd.core.errors import TryLater
from syncd.model.entry import Entry as Uploaded
from syncd.model.entry import Kind
from syncd.remote.failure import ApiStep
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest
from tests.instants import some_of
from tests.integration.sync_rig import KEY, Killed, RecordingObserver, Rig
from tests.integration.test_look import executions, pending


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """`a` and `stay` are in the sandbox."""
    bare.keys["sandbox"]["deletions"] = "mirror"
    bare.wait_for_programs()
    bare.send({"a": "hello", "stay": "hello"})
    return bare


def deleted_and_cut(rig: Rig, fault: str) -> None:
    """Delete `a`; the process dies when the sync meets the fault."""
    rig.delete("a")
    rig.emulator.faults.script(f"{fault} always")
    with pytest.raises(Killed):
        rig.sync(observer=RecordingObserver(rig.clock, ends=Killed()))
    rig.emulator.faults.clear()


def begin_late(rig: Rig, name: str) -> int:
    """Deliver the interrupted request to execute after all, and return the response's status."""
    url = f"{rig.emulator.base_url}/local-sandbox/{rig.sandbox.id}/execute?region=us"
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx.post(url, headers=headers, json={"execution_name": name}, timeout=60).status_code


# What is in its place here afterwards; nothing: it stays deleted.
THEN = [{"a": "hello"}, {"a": "another"}, {"a/b": "hello"}, {}]
CUTS = ["reset", "lost", "503", "503 after", "delay 0.1", "cut"]
OPS = ["execution-upload-url", "execution-upload", "execute", "execution-logs"]


@pytest.mark.parametrize("case", some_of(product(OPS, CUTS, THEN), 5), ids=str)
def test_interrupted_and_late(rig: Rig, case: tuple[str, str, Mapping[str, str]]) -> None:
    """The sandbox equals the workspace in the end, whatever became of a removal and whenever it begins."""
    op, cut, then = case
    rig.delete("a")
    rig.emulator.faults.script(f"{op}: {cut}")
    observer = RecordingObserver(rig.clock, ends=Killed())
    try:
        rig.sync(observer=observer)  # a delay is no failure, nor half an answer to a PUT
    except Killed:
        names = pending(rig, rig.state_folder)
        assert bool(names) == (op in ("execute", "execution-logs"))
    else:
        assert cut in ("delay 0.1", "cut")
        names = pending(rig, rig.state_folder)
        assert names == []
    for path, content in then.items():
        rig.write(path, content)
    rig.restart()
    rig.sync()
    assert rig.is_as_home()
    if then:  # a removal of what nobody wants is not waited for
        assert pending(rig, rig.state_folder) == []
    if cut in ("reset", "503"):
        for name in names if op == "execute" else ():
            begin_late(rig, name)
    assert rig.is_as_home()
    if not then:
        rig.send({"a": "hello"})
        assert pending(rig, rig.state_folder) == []
        assert rig.is_as_home()


@pytest.mark.parametrize("deletions", ["mirror", "keep"])
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_a_waiting_removal_is_waited_for(rig: Rig, deletions: str, *, restarted: bool) -> None:
    """Nothing is initialized before the sandbox's clock is past its end; the status gives the reason."""
    rig.sandbox.hold()
    deleted_and_cut(rig, "execute: lost")
    rig.write("a")
    if restarted:
        rig.set(deletions=deletions)
    asked = len(rig.asked())
    failure, observer = rig.fail()
    assert failure.step is ApiStep.DELETE
    assert str(failure).endswith("the sync goes on by itself, once that can do nothing any more")
    assert "initialize" not in rig.asked()[asked:]
    assert sum(observer.waits) <= 60  # the budget of the test's configuration
    rig.sandbox.start_held()
    rig.sandbox.wait()
    assert "a" in rig.arrived()
    rig.sync()
    assert rig.is_as_home()
    assert pending(rig, rig.state_folder) == []


def test_a_wrong_clock_here_makes_no_longer_wait(rig: Rig) -> None:
    """A process whose first look is a removal tells its end by the API's clock, not by this machine's."""
    rig.clock.wall += 7_200  # the emulator has the same one, so that its answers tell the real time
    rig.restart()
    rig.emulator.faults.script("execution-upload-url: skew -7200")
    deleted_and_cut(rig, "execute: 500 after")
    rig.write("a")
    rig.restart()
    observer = RecordingObserver(rig.clock)
    rig.sync(observer=observer)
    assert 0 < sum(observer.waits) < 60
    assert rig.is_as_home()


def test_a_sandbox_that_has_ended(rig: Rig) -> None:
    """The record does not hide it."""
    deleted_and_cut(rig, "execute: lost")
    rig.write("a")
    rig.restart()
    rig.emulator.faults.script("execution-upload-url: gone")
    failure, _ = rig.fail()
    assert "knows no sandbox" in str(failure)


def test_no_record_no_removal(tmp_path: Path, rig: Rig) -> None:
    """A removal that cannot be recorded is not begun."""
    folder = tmp_path / "gone"
    folder.mkdir()
    looking = executions(rig, folder)
    folder.rmdir()
    removed = LookItem((Uploaded(Kind.DIRECTORY, 0o755, 1),), LookAction.REMOVE)
    with pytest.raises(TryLater, match="nothing is removed: free some disk space, or make it writable"):
        looking.start_look(LookRequest({"a": removed}))
    assert "execute" not in rig.asked()
