"""Files that cannot be read to their end, are written while they are sent, or vanish before.

The sandbox keeps the complete version of the one until it can be read. What was sent of the other is known, and is
removed with it; it is read again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import NearlyEmpty, SyncdError, TryLater, WorkspaceError
from tests.integration.sync_rig import RecordingObserver, Rig

MIB = 1 << 20


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """A workspace of a small file and a large one, both in the sandbox."""
    bare.send({"a.txt": "small", "big": "1" * 3 * MIB})
    return bare


class BadSector:
    """Makes reading the large file fail from the second check on: its descriptor becomes that of a directory."""

    def __init__(self, rig: Rig) -> None:
        self._path = os.path.realpath(rig.workspace / "big")
        self._folder = os.open(rig.workspace, os.O_RDONLY)
        self._checks = 0
        self.tries = 0
        rig.meanwhile = self

    def __call__(self) -> None:
        for name in os.listdir("/proc/self/fd"):
            if os.path.realpath(f"/proc/self/fd/{name}") == self._path:
                self._checks += 1
                if self._checks % 2 == 0:
                    self.tries += 1
                    os.dup2(self._folder, int(name))

    def mended(self, rig: Rig) -> None:
        rig.meanwhile = lambda: None
        os.close(self._folder)


def test_a_partial_file_never_replaces_a_complete_one(rig: Rig) -> None:
    """It is not sent, the others are; once it can be read, it is sent without a further change."""
    rig.write("big", "2" * 3 * MIB)
    rig.write("a.txt", "changed")
    disk = BadSector(rig)
    outcome, _ = rig.sync()
    assert outcome.follow_up == ()
    assert disk.tries == 1
    arrived = rig.arrived()
    assert arrived["a.txt"] == "changed"
    assert arrived["big"] == "1" * 3 * MIB
    assert list(rig.warnings) == ["unreadable:big"]
    disk.mended(rig)
    outcome, _ = rig.sync()
    assert outcome.sync is not None
    assert rig.arrived()["big"] == "2" * 3 * MIB
    assert rig.cycle.warnings == []
    assert rig.sync()[0].sync is None


def test_a_failing_file_is_not_read_in_every_scan(rig: Rig) -> None:
    """But in each rescan, as a disk may be repaired; the warning stays, and nothing is uploaded."""
    rig.write("big", "2" * 3 * MIB)
    disk = BadSector(rig)
    rig.sync()
    uploads = rig.asked().count("upload")
    tries = disk.tries
    for directories, more in (({""}, 0), ({""}, 0), (None, 1), ({""}, 0)):
        outcome, _ = rig.sync(observer=RecordingObserver(rig.clock, only=directories))
        assert outcome.sync is None
        assert list(rig.warnings) == ["unreadable:big"]
        tries += more
        assert disk.tries == tries
    assert rig.asked().count("upload") == uploads
    disk.mended(rig)


# -- written all the time

Write = Callable[[Path, int], None]


@pytest.fixture
def mirrored(bare: Rig) -> Rig:
    """The sandbox holds a file that does not change; deletions are mirrored."""
    bare.wait_for_programs()
    bare.keys["sandbox"]["deletions"] = "mirror"
    bare.send({"stay": "hello"})
    return bare


def cut(path: Path, step: int) -> None:
    os.truncate(path, max(10, path.stat().st_size - 300_000 - step))


def copied_and_cut(path: Path, step: int) -> None:
    """As logrotate does; it is soon as long as before."""
    content = path.read_bytes()
    path.write_bytes(b"%08d" % step)
    with path.open("ab") as file:
        file.write(content)


def overwritten(path: Path, step: int) -> None:
    with path.open("r+b") as file:
        file.write(b"%08d" % step)


def torn(rig: Rig, write: Write, size_bytes: int) -> Path:
    """The file, after a sync during which it was written all the time, so that what was sent is of no one instant."""
    path = rig.workspace / "torn"
    path.write_bytes(os.urandom(size_bytes))
    real, steps = os.pread, iter(range(1_000))

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        content = real(descriptor, count, offset)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            write(path, next(steps))
        return content

    with pytest.MonkeyPatch.context() as patch:
        # The reads are the only moments that this process has while it packs a small file.
        patch.setattr("syncd.scan.file_reader.os.pread", pread)
        patch.setattr("syncd.scan.file_reader.os.preadv", lambda *_: 0, raising=False)
        outcome, _ = rig.sync()
    assert outcome.follow_up == outcome.torn == ("torn",)
    return path


@pytest.mark.parametrize("write", [cut, overwritten, copied_and_cut])
@pytest.mark.parametrize("size_bytes", [500_000, 3 * MIB], ids=["small", "large"])
@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
def test_a_file_that_is_renamed_after_it_was_written_all_the_time(
    mirrored: Rig, write: Write, size_bytes: int, *, restarted: bool
) -> None:
    """The copy under the old name is removed, and nothing says that it was changed in the sandbox."""
    path = torn(mirrored, write, size_bytes)
    path.rename(mirrored.workspace / "renamed")
    if restarted:
        mirrored.restart()
    mirrored.sync()
    assert sorted(os.listdir(mirrored.sandbox.workspace)) == ["renamed", "stay"]
    assert (mirrored.sandbox.workspace / "renamed").read_bytes() == (mirrored.workspace / "renamed").read_bytes()
    assert mirrored.cycle.warnings == []


# -- a workspace that vanishes between scan and packing: the rest is not sent, and is no baseline

FILES = 40


@pytest.fixture
def edited(bare: Rig) -> Rig:
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
def test_vanishes_before_it_is_packed(edited: Rig, accident: Callable[[Rig], None], sync_mode: SyncMode) -> None:
    """Nothing is sent; the next scan finds what happened, and holds. When it is back it is sent."""
    _as_packing_begins(edited, accident)
    uploads = edited.emulator.request_log.count("upload")
    with pytest.raises(SyncdError) as failure:
        edited.cycle.run(sync_mode, RecordingObserver(edited.clock))
    assert isinstance(failure.value, TryLater | WorkspaceError)
    edited.meanwhile = lambda: None
    with pytest.raises(WorkspaceError) as failure:
        edited.cycle.run(SyncMode.CHANGED, RecordingObserver(edited.clock))
    assert accident is removed or isinstance(failure.value, NearlyEmpty)
    assert edited.emulator.request_log.count("upload") == uploads
    _write(edited, 2)
    edited.sync()
    assert len(edited.arrived()) == FILES
    assert edited.arrived()["folder0/file00"] == "2" * 50_000


def test_some_files_vanish_before_they_are_packed(edited: Rig) -> None:
    """That is normal work: the others are sent, and another sync follows. That removes them there, as the one before
    could not tell if they were deleted.
    """
    edited.wait_for_programs()
    edited.set(deletions="mirror", agent_changes="save")

    def some(rig: Rig) -> None:
        for folder in ("folder0", "folder1", "folder2"):
            shutil.rmtree(rig.workspace / folder)

    _as_packing_begins(edited, some)
    outcome, _ = edited.sync()
    assert outcome.sync.files == FILES // 4
    assert outcome.follow_up
    assert len(edited.arrived()) == FILES
    edited.meanwhile = lambda: None
    edited.sync()
    assert len(edited.arrived()) == FILES // 4
    assert edited.status.lingering == 0


def test_replaced_as_packing_begins(edited: Rig) -> None:
    """The scanned files are sent from their new place; the replacement does not count as the workspace."""

    def replace(rig: Rig) -> None:
        rig.workspace.rename(rig.folder / "aside")
        for number in range(FILES):
            rig.write(f"private{number}", "of another")

    _as_packing_begins(edited, replace)
    edited.sync()
    assert len(edited.arrived()) == FILES
    assert edited.arrived()["folder0/file00"] == "1" * 50_000
    with pytest.raises(NearlyEmpty):
        edited.cycle.run(SyncMode.CHANGED, RecordingObserver(edited.clock))
