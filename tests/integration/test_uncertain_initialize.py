"""An initialize, or an upload, that may or may not have happened: what is known of the sandbox and the bucket then.

At which steps a sync may die, and what the next one does, is in `tests/unit/test_small_scope.py`.
"""

from __future__ import annotations

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import NearlyEmpty, Stop, TryLater
from syncd.core.waiter import Event
from syncd.remote.failure import StepFailed
from syncd.store.state_db import StateDb
from tests.clock import LATER_S
from tests.integration.sync_rig import RecordingObserver, Rig
from tests.recorded import full_disk, remove

FIRST, SECOND = {"a.txt": "hello"}, {"a.txt": "HELLO"}
REVERTED = pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """A workspace that is in the sandbox, with old files."""
    bare.clock.wall = LATER_S
    bare.send(FIRST)
    return bare


def interrupted(rig: Rig, fault: str, end: BaseException | None) -> None:
    """Sync the second text until this fault, after which the sync ends in `end`, or by itself if that is None."""
    rig.write("a.txt", SECOND["a.txt"])
    rig.emulator.faults.script(f"{fault} always")
    with pytest.raises(type(end) if end else StepFailed):
        rig.sync(observer=RecordingObserver(rig.clock, ends=end))
    rig.emulator.faults.clear()


def test_an_upload_whose_answer_is_awaited(rig: Rig) -> None:
    """A reload waits for it: an upload that is given up may be stored over the next one."""
    came: dict[Event, float] = {}
    rig.emulator.faults.on("upload", "before", lambda _: came.setdefault(Event.RELOAD, rig.clock.monotonic_s()))
    with rig.client.waiter.superseded_by(lambda: came):
        rig.send(SECOND)
    assert came
    assert rig.arrived() == SECOND


@REVERTED
def test_the_guard_uses_the_last_known_manifest(bare: Rig, *, restarted: bool) -> None:
    """Uncertainty does not weaken it: a workspace that is suddenly almost empty is held."""
    for number in range(30):
        bare.write(f"f{number}", "x")
    bare.sync()
    bare.write("f0", "y")
    bare.emulator.faults.script("initialize: lost")
    with pytest.raises(Stop):
        bare.sync(observer=RecordingObserver(bare.clock, ends=Stop()))
    if restarted:
        bare.restart()
    for number in range(1, 30):
        bare.delete(f"f{number}")
    with pytest.raises(NearlyEmpty):
        bare.sync()
    assert bare.sync(SyncMode.FORCED)[0].word == "initialized"


@pytest.mark.parametrize("step", ["upload-url", "initialize"])
@pytest.mark.parametrize("status", [404, 410])
@REVERTED
def test_a_sandbox_that_is_created_again(rig: Rig, step: str, status: int, *, restarted: bool) -> None:
    """Once the API knew no such sandbox, its recorded content does not count: the next one is empty."""
    if step == "upload-url":
        rig.restart()
        remove(rig.state_folder, "upload_url")
    interrupted(rig, f"{step}: {status}", None)
    (rig.sandbox.workspace / "a.txt").unlink()
    rig.write("a.txt", FIRST["a.txt"])
    if restarted:
        rig.restart()
    assert rig.sync()[0].word == "initialized"
    assert rig.arrived() == FIRST


def test_an_archive_that_only_lacks_its_initialize(rig: Rig) -> None:
    """It is not uploaded again, until another one was, or another process begins, which knows of none."""
    interrupted(rig, "initialize: reset", Stop())
    before = rig.uploads
    rig.sync()
    assert (rig.uploads, rig.arrived()) == (before, SECOND)
    rig.send(FIRST)
    interrupted(rig, "initialize: reset", Stop())
    rig.write("a.txt", "third")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StateDb, "_commit", full_disk)
        with pytest.raises(TryLater, match="nothing is sent"):
            rig.sync()
    rig.send(SECOND)
    assert (rig.uploads, rig.arrived()) == (before + 4, SECOND)
    rig.send(FIRST)
    interrupted(rig, "initialize: reset", Stop())
    rig.restart()
    rig.sync()
    assert (rig.uploads, rig.arrived()) == (before + 7, SECOND)
