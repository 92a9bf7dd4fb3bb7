"""An initialize that may have happened: until its answer is recorded, nothing counts as unchanged.

The sandbox holds a first text, the sync of a second one is interrupted, and the first one is restored. Then workspace
and record are equal, while the sandbox may hold the second text.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import NearlyEmpty, Stop, TryLater
from syncd.core.waiter import Superseded
from syncd.remote.failure import StepFailed
from tests.integration.sync_rig import RecordingObserver, Rig, rigged

# By this clock every file is old enough for its stamp to be trusted.
LATER_S = 4_000_000_000.0
FIRST, SECOND = {"a.txt": "hello"}, {"a.txt": "HELLO"}
REVERTED = pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A workspace that is in the sandbox, with old files."""
    with rigged(tmp_path) as rig:
        rig.clock.wall = LATER_S
        rig.write("a.txt", FIRST["a.txt"])
        rig.sync()
        yield rig


def cut_off(rig: Rig, fault: str, end: BaseException | None) -> None:
    """Write the second text; the sync ends by this fault, or by itself."""
    rig.write("a.txt", SECOND["a.txt"])
    rig.emulator.faults.script(f"{fault} always")
    with pytest.raises(type(end) if end else StepFailed):
        rig.sync(observer=RecordingObserver(rig.clock, ends=end))
    rig.emulator.faults.clear()


def uploads(rig: Rig) -> int:
    return rig.emulator.request_log.count("upload", 200)


def in_state(rig: Rig, name: str) -> list[Path]:
    return list(rig.folder.glob(f"state/syncd/*/{name}"))


@REVERTED
@pytest.mark.parametrize("end", [Stop(), Superseded(), None], ids=["stopped", "superseded", "given up"])
@pytest.mark.parametrize("fault", ["lost", "cut", "503 after"])
def test_a_restored_text(rig: Rig, fault: str, end: BaseException | None, *, restarted: bool) -> None:
    """Unless the initialize succeeded, the first text is sent once more, by any process."""
    cut_off(rig, f"initialize: {fault}", end)
    assert in_state(rig, "unsure")
    rig.write("a.txt", FIRST["a.txt"])
    if restarted:
        rig.restart()
    outcome, _ = rig.sync()
    assert rig.arrived() == FIRST
    assert outcome.word == "initialized"
    assert not in_state(rig, "unsure")
    assert rig.sync()[0].word == "unchanged"
    rig.restart()
    assert rig.sync()[0].word == "unchanged"


def test_the_danger_is_real(rig: Rig) -> None:
    """The sandbox does hold the text of an initialize without an answer, so the other tests can fail."""
    cut_off(rig, "initialize: lost", Stop())
    assert rig.arrived() == SECOND


@pytest.mark.parametrize("step", range(1, 5))
def test_restored_while_it_is_packed(rig: Rig, step: int) -> None:
    """An archive whose content equals the recorded one does not count as unchanged."""
    cut_off(rig, "initialize: lost", Stop())
    rig.write("a.txt", "third")
    steps = iter(range(1, 100))

    def take_back() -> None:
        if next(steps) == step:
            rig.write("a.txt", FIRST["a.txt"])

    rig.meanwhile = take_back
    rig.sync()
    assert next(steps) > step
    rig.sync()
    assert rig.arrived() == FIRST


@REVERTED
def test_a_second_initialize_is_enough(rig: Rig, *, restarted: bool) -> None:
    """If the change stays, the uploaded archive needs only its initialize."""
    cut_off(rig, "initialize: reset", Stop())
    if restarted:
        rig.restart()
    before = rig.asked()
    assert rig.sync()[0].word == "initialized"
    assert rig.asked() == [*before, "initialize"]
    assert rig.arrived() == SECOND


@REVERTED
@pytest.mark.parametrize("fault", ["upload-url: 503", "upload: 503", "upload: lost", "upload: reset mid-body"])
def test_before_the_initialize_nothing_is_uncertain(rig: Rig, fault: str, *, restarted: bool) -> None:
    """A restored change that never reached the sandbox costs nothing."""
    if fault.startswith("upload-url"):
        rig.restart()
        in_state(rig, "lease")[0].unlink()
    cut_off(rig, fault, Stop())
    rig.write("a.txt", FIRST["a.txt"])
    if restarted:
        rig.restart()
    before = rig.asked()
    assert rig.sync()[0].word == "unchanged"
    assert rig.asked() == before


def test_twice_uncertain(rig: Rig) -> None:
    """The sync that ends the uncertainty may be interrupted, too."""
    cut_off(rig, "initialize: lost", Stop())
    rig.write("a.txt", FIRST["a.txt"])
    rig.restart()
    rig.emulator.faults.script("upload: reset", "initialize: lost")
    for _ in range(2):
        with pytest.raises(Stop):
            rig.sync(observer=RecordingObserver(rig.clock, ends=Stop()))
        rig.restart()
    rig.sync()
    assert rig.arrived() == FIRST


@REVERTED
def test_the_guard_goes_by_the_last_manifest_known(tmp_path: Path, *, restarted: bool) -> None:
    """Uncertainty does not disable it: a workspace that is suddenly almost empty is held."""
    with rigged(tmp_path) as rig:
        for number in range(30):
            rig.write(f"f{number}", "x")
        rig.sync()
        rig.write("f0", "y")
        rig.emulator.faults.script("initialize: lost")
        with pytest.raises(Stop):
            rig.sync(observer=RecordingObserver(rig.clock, ends=Stop()))
        if restarted:
            rig.restart()
        for number in range(1, 30):
            (rig.workspace / f"f{number}").unlink()
        with pytest.raises(NearlyEmpty):
            rig.sync()
        assert rig.sync(SyncMode.FORCED)[0].word == "initialized"


def test_the_log_says_why(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It has the difference to the last known manifest, and why the archive is sent without one."""
    cut_off(rig, "initialize: lost", Stop())
    rig.write("a.txt", FIRST["a.txt"])
    caplog.set_level(logging.INFO, "syncd")
    rig.sync()
    assert "1 files: nothing new; an earlier sync may have reached the sandbox unanswered" in caplog.text


@pytest.mark.parametrize("step", ["upload-url", "initialize"])
@pytest.mark.parametrize("status", [404, 410])
@REVERTED
def test_a_sandbox_that_was_created_again(rig: Rig, step: str, status: int, *, restarted: bool) -> None:
    """After a 404 nothing is known of its content: the next one is empty."""
    if step == "upload-url":
        rig.restart()
        in_state(rig, "lease")[0].unlink()
    cut_off(rig, f"{step}: {status}", None)
    (rig.sandbox.workspace / "a.txt").unlink()
    rig.write("a.txt", FIRST["a.txt"])
    if restarted:
        rig.restart()
    assert rig.sync()[0].word == "initialized"
    assert rig.arrived() == FIRST


def test_another_sandbox_in_between(rig: Rig) -> None:
    """Uncertainty about a sandbox is kept while another one is configured."""
    cut_off(rig, "initialize: lost", Stop())
    rig.keys["sandbox"]["id"] = "gone"
    rig.restart()
    rig.fail()
    rig.keys["sandbox"]["id"] = "box"
    rig.write("a.txt", FIRST["a.txt"])
    rig.restart()
    rig.sync()
    assert rig.arrived() == FIRST


# Where the state folder takes no note.


@contextlib.contextmanager
def _immutable(*paths: Path) -> Iterator[None]:
    """Make a path immutable, for root too."""
    if shutil.which("chattr") is None:
        pytest.skip("no chattr")
    names = [str(path) for path in paths]
    if subprocess.run(["chattr", "+i", *names], capture_output=True, check=False).returncode:
        subprocess.run(["chattr", "-i", *names], capture_output=True, check=False)
        pytest.skip("chattr +i is not possible here")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *names], check=True)


@contextlib.contextmanager
def _unwritable(rig: Rig) -> Iterator[None]:
    """Make the state folder and its files unwritable."""
    (folder,) = rig.folder.glob("state/syncd/*")
    with _immutable(folder, *folder.iterdir()):
        yield


def test_no_mark_no_initialize(rig: Rig) -> None:
    """An initialize that cannot be marked is not begun; one line says so, and syncd goes on by itself."""
    rig.write("a.txt", SECOND["a.txt"])
    before = rig.asked()
    with (
        _unwritable(rig),
        pytest.raises(TryLater, match=r"state folder cannot be written.*: make it writable") as caught,
    ):
        rig.sync()
    assert "\n" not in str(caught.value)
    assert "initialize" not in rig.asked()[len(before) :]
    rig.sync()
    assert rig.arrived() == SECOND


def test_no_record_no_upload(rig: Rig) -> None:
    """An upload is not begun if the replaced archive in the bucket cannot be recorded."""
    cut_off(rig, "initialize: reset", Stop())
    rig.write("a.txt", "third")
    before = uploads(rig)
    with _unwritable(rig), pytest.raises(TryLater, match="nothing is sent"):
        rig.sync()
    assert uploads(rig) == before
    rig.restart()
    rig.write("a.txt", SECOND["a.txt"])
    rig.sync()
    assert rig.arrived() == SECOND


@pytest.mark.parametrize("recorded", ["initialized", "uploaded"])
def test_a_folder_that_is_read_only(rig: Rig, recorded: str) -> None:
    """If files can be written but not removed, an outdated record is emptied, which costs a full sync."""
    (folder,) = rig.folder.glob("state/syncd/*")
    if recorded == "uploaded":
        cut_off(rig, "initialize: reset", Stop())
    rig.write("a.txt", "third")
    rig.emulator.faults.script("initialize: lost")
    with _immutable(folder), pytest.raises(Stop):
        rig.sync(observer=RecordingObserver(rig.clock, ends=Stop()))
    rig.emulator.faults.clear()
    rig.restart()
    rig.write("a.txt", FIRST["a.txt"] if recorded == "initialized" else SECOND["a.txt"])
    rig.sync()
    assert rig.arrived()["a.txt"] == (rig.workspace / "a.txt").read_text()
