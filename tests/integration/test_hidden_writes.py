"""Writes that change no time of the file are sent: a mapping's second write to a dirty page.

The mapping and the file are real; time is scripted, so that the page is dirty whatever the stamp's age.
"""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import Stop
from syncd.model.entry import Entry
from tests.integration.sync_rig import Rig

# Of a last write: old enough for its stamp to be trusted, and not.
BELIEVED_S, YOUNG_S = 100.0, 10.0
SECRET = "token = ghp_" + "".join(random.Random(7).choices("ABCDEFGHJKabcdefghjk23456789", k=36))
_TRIES = 20


@pytest.fixture
def rig(bare: Rig) -> Rig:
    bare.write("f", "0" * 100)
    bare.write("other", "other")
    return bare


def sync(rig: Rig, sync_mode: SyncMode = SyncMode.CHANGED, age_s: float = BELIEVED_S) -> str:
    """Sync when the file's last known write is this old, and return the outcome's word."""
    rig.clock.wall = (rig.workspace / "f").stat().st_ctime + age_s
    return rig.sync(sync_mode)[0].word


@contextmanager
def written_in_secret(rig: Rig, age_s: float = BELIEVED_S) -> Iterator[mmap.mmap]:
    """A file that was synced at this age, written once more without a new time, and then closed."""
    path = rig.workspace / "f"
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
        with mmap.mmap(file.fileno(), 0) as memory:
            for number in range(_TRIES):
                memory[0:4] = b"%04d" % (2 * number + 1)
                assert sync(rig, age_s=age_s) == "initialized"
                before = path.stat()
                memory[0:4] = b"%04d" % (2 * number + 2)
                after = path.stat()
                # Someone may have had the disk's caches written: then the times moved.
                if (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns):
                    break
            else:
                pytest.fail("a mapping's second write always moved the times")
            yield memory


def known(rig: Rig, path: str = "f") -> Entry:
    assert rig.cycle.content.is_known
    return rig.cycle.content.base[path]


def test_a_failed_sync_does_not_restore_the_stamp(rig: Rig) -> None:
    """Neither a failed delivery nor an interrupted scan makes the old stamp trusted again."""
    with written_in_secret(rig):
        pass
    rig.cycle.snapshotter.note_written({"f"})

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


@pytest.mark.parametrize("restarted", [False, True])
def test_no_young_stamp_is_trusted(rig: Rig, *, restarted: bool) -> None:
    """A file that was young when it was read is read by the next scan, and once more when it is old."""
    with written_in_secret(rig, YOUNG_S):
        if restarted:
            rig.restart()
        assert sync(rig) == "initialized"
        assert rig.is_as_home()
    stamp = known(rig).stamp
    assert stamp is not None
    assert sync(rig) == "unchanged"
    assert known(rig).stamp == stamp


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
            rig.cycle.snapshotter.note_written({"f"})
        assert sync(rig, SyncMode.FORCED if how == "forced" else SyncMode.CHANGED) == "initialized"
        assert rig.is_as_home()
