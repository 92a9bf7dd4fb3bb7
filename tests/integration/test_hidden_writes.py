"""Writes that change no time of the file are sent: a mapping's second write to a dirty page.

The mapping and the file are real; time is scripted, so that the page is dirty whatever the stamp's age.
"""

from __future__ import annotations

import mmap
import os
import random

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import Stop
from tests.integration.sync_rig import Rig

BELIEVED_S = 100.0  # of a last write: old enough for its stamp to be trusted
SECRET = "token = ghp_" + "".join(random.Random(7).choices("ABCDEFGHJKabcdefghjk23456789", k=36))
_TRIES = 20


@pytest.fixture
def rig(bare: Rig) -> Rig:
    bare.write("f", "0" * 100)
    bare.write("other", "other")
    return bare


def sync(rig: Rig, sync_mode: SyncMode = SyncMode.CHANGED) -> str:
    """Sync when the file's last known write is old, and return the outcome's word."""
    rig.clock.wall = (rig.workspace / "f").stat().st_ctime + BELIEVED_S
    return rig.sync(sync_mode)[0].word


def write_in_secret(rig: Rig) -> None:
    """Write the file, which was synced, once more without a new time, and close it."""
    path = rig.workspace / "f"
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        os.fsync(file.fileno())
        for number in range(_TRIES):
            memory[0:4] = b"%04d" % (2 * number + 1)
            assert sync(rig) == "initialized"
            before = path.stat()
            memory[0:4] = b"%04d" % (2 * number + 2)
            after = path.stat()
            # Someone may have had the disk's caches written: then the times moved.
            if (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns):
                return
        pytest.fail("a mapping's second write always moved the times")


def test_a_failed_sync_does_not_restore_the_stamp(rig: Rig) -> None:
    """Neither a failed delivery nor an interrupted scan makes the old stamp trusted again."""
    write_in_secret(rig)
    rig.cycle.snapshotter.note_modified({"f"})

    def stop() -> None:
        raise Stop

    rig.meanwhile = stop
    with pytest.raises(Stop):
        rig.sync()
    rig.meanwhile = lambda: None
    rig.emulator.faults.script("upload: 400 always")
    rig.fail()
    rig.emulator.faults.clear()
    assert sync(rig) == "initialized"
    assert rig.is_as_home()


@pytest.mark.parametrize("how", ["closed", "forced"])
def test_a_secret_removed_without_a_new_time(rig: Rig, how: str) -> None:
    """An excluded secret file is read again, too."""
    rig.write("f", SECRET)
    path = rig.workspace / "f"
    sync(rig)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        for number in range(_TRIES):
            memory[-1] = ord("abc"[number % 3])
            rig.write("other", f"{number}")
            assert sync(rig) == "initialized"
            before = path.stat()
            secret = memory[8:]
            memory[8:] = b"$" * len(secret)
            if path.stat().st_ctime_ns == before.st_ctime_ns:
                break
            memory[8:] = secret
        assert sync(rig) == "unchanged"
        assert "f" not in rig.arrived()
        if how != "forced":
            rig.cycle.snapshotter.note_modified({"f"})
        assert sync(rig, SyncMode.FORCED if how == "forced" else SyncMode.CHANGED) == "initialized"
        assert rig.is_as_home()
