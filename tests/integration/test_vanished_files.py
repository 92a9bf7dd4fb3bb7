"""A workspace that vanishes between scan and packing: the rest is not sent, and is no baseline."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import NearlyEmpty, SyncdError, TryLater, WorkspaceError
from tests.integration.sync_rig import RecordingObserver, Rig

FILES = 40


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """A sandbox that holds forty files, all of them edited since."""
    _write(bare, 0)
    bare.sync()
    _write(bare, 1)
    return bare


def _write(rig: Rig, version: int) -> None:
    for number in range(FILES):
        rig.write(f"folder{number % 4}/file{number:02}", f"{number + version}" * 50_000)


def emptied(rig: Rig) -> None:
    for folder in list(rig.workspace.iterdir()):
        shutil.rmtree(folder)


def removed(rig: Rig) -> None:
    shutil.rmtree(rig.workspace)


def _as_packing_begins(rig: Rig, act: Callable[[Rig], None]) -> None:
    """Call `act` once, when the scan has ended and packing begins."""
    folders = 4  # a check before each, and then one before the first chunk
    steps = iter(range(10_000))

    def meanwhile() -> None:
        if next(steps) == folders:
            act(rig)

    rig.meanwhile = meanwhile


@pytest.mark.parametrize("sync_mode", SyncMode)
@pytest.mark.parametrize("accident", [emptied, removed])
def test_vanishes_before_it_is_packed(rig: Rig, accident: Callable[[Rig], None], sync_mode: SyncMode) -> None:
    """Nothing is sent; the next scan finds what happened, and holds. When it is back it is sent."""
    _as_packing_begins(rig, accident)
    uploads = rig.emulator.request_log.count("upload")
    with pytest.raises(SyncdError) as failure:
        rig.cycle.run(sync_mode, RecordingObserver(rig.clock))
    assert isinstance(failure.value, TryLater | WorkspaceError)
    rig.meanwhile = lambda: None
    with pytest.raises(WorkspaceError) as failure:
        rig.cycle.run(SyncMode.CHANGED, RecordingObserver(rig.clock))
    assert accident is removed or isinstance(failure.value, NearlyEmpty)
    assert rig.emulator.request_log.count("upload") == uploads
    _write(rig, 2)
    rig.sync()
    assert len(rig.arrived()) == FILES
    assert rig.arrived()["folder0/file00"] == "2" * 50_000


def test_some_files_vanish_before_they_are_packed(rig: Rig) -> None:
    """That is normal work: the others are sent, and another sync follows. That removes them there, as the one before
    could not tell if they were deleted.
    """
    rig.wait_for_programs()
    rig.set(deletions="mirror", agent_changes="save")

    def some(rig: Rig) -> None:
        for folder in ("folder0", "folder1", "folder2"):
            shutil.rmtree(rig.workspace / folder)

    _as_packing_begins(rig, some)
    outcome, _ = rig.sync()
    assert outcome.sync is not None
    assert outcome.sync.files == FILES // 4
    assert outcome.follow_up
    assert len(rig.arrived()) == FILES
    rig.meanwhile = lambda: None
    rig.sync()
    assert len(rig.arrived()) == FILES // 4
    assert rig.status.lingering == 0


def test_replaced_as_packing_begins(rig: Rig) -> None:
    """The scanned files are sent from their new place; the replacement does not count as the workspace."""

    def replace(rig: Rig) -> None:
        rig.workspace.rename(rig.folder / "aside")
        for number in range(FILES):
            rig.write(f"private{number}", "of another")

    _as_packing_begins(rig, replace)
    rig.sync()
    assert len(rig.arrived()) == FILES
    assert rig.arrived()["folder0/file00"] == "1" * 50_000
    with pytest.raises(NearlyEmpty):
        rig.cycle.run(SyncMode.CHANGED, RecordingObserver(rig.clock))
