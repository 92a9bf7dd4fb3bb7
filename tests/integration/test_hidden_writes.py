"""Writes that no time of the file tells of reach the sandbox: a mapping's second write to a page that is dirty already.

What is read in between is believed by its stamp, which stands. Real mappings on a real file; the clock is the test's.
"""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import Stop
from syncd.scan.manifest import Entry
from tests.integration.sync_rig import Rig, rigged

# Old enough to be believed by the process that read it; and by any.
BELIEVED_S = 10.0
WRITTEN_BACK_S = 100.0
SECRET = "token = ghp_" + "".join(random.Random(7).choices("ABCDEFGHJKabcdefghjk23456789", k=36))
_TRIES = 20


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as rig:
        rig.write("f", "0" * 100)
        rig.write("other", "other")
        yield rig


def sync(rig: Rig, sync_mode: SyncMode = SyncMode.CHANGED, age_s: float = BELIEVED_S) -> str:
    """A sync at a time when the file's last known write is so old; its outcome's word."""
    rig.clock.wall = (rig.workspace / "f").stat().st_ctime + age_s
    return rig.sync(sync_mode)[0].word


@contextmanager
def written_in_secret(rig: Rig) -> Iterator[mmap.mmap]:
    """The file was synced, and written once more with no time to tell. It is closed in the end."""
    path = rig.workspace / "f"
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
        with mmap.mmap(file.fileno(), 0) as memory:
            for number in range(_TRIES):
                memory[0:4] = b"%04d" % (2 * number + 1)
                assert sync(rig) == "initialized"
                before = path.stat()
                memory[0:4] = b"%04d" % (2 * number + 2)
                after = path.stat()
                # Someone may have had the disk's caches written: then the times moved.
                if (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns):
                    break
            else:
                pytest.fail("a mapping's second write always moved the times")
            yield memory


def equal(rig: Rig) -> bool:
    return rig.arrived()["f"] == (rig.workspace / "f").read_text()


def known(rig: Rig, path: str = "f") -> Entry:
    assert rig.cycle.baseline is not None
    return rig.cycle.baseline[path]


def test_nothing_but_an_event_tells(rig: Rig) -> None:
    """The stamp stands, so an ordinary look sees nothing: what the other tests here rest on."""
    with written_in_secret(rig):
        assert sync(rig) == "unchanged"
        assert not equal(rig)


def test_the_file_that_was_closed_is_read(rig: Rig) -> None:
    """Who closed it may have written to it: it is named, and its stamp no longer believed."""
    with written_in_secret(rig):
        pass
    rig.cycle.forget_stamps({"f"})
    assert sync(rig) == "initialized"
    assert equal(rig)
    rig.cycle.forget_stamps({"f", "other", "not there"})
    assert sync(rig) == "unchanged"


def test_a_look_that_failed_does_not_forget_it(rig: Rig) -> None:
    """Neither a delivery that fails after it was read nor a scan that is broken off brings the old stamp back."""
    with written_in_secret(rig):
        pass
    rig.cycle.forget_stamps({"f"})
    rig.emulator.faults.script("upload: 400 always")
    rig.fail()
    rig.emulator.faults.clear()

    def stop() -> None:
        raise Stop

    rig.meanwhile = stop
    with pytest.raises(Stop):
        rig.sync()
    rig.meanwhile = lambda: None
    assert sync(rig) == "initialized"
    assert equal(rig)


def test_events_were_missed(rig: Rig) -> None:
    """Then every file is read that was not known to be written back when it was read; others are not."""
    with written_in_secret(rig):
        rig.cycle.forget_stamps(None)
        assert sync(rig, age_s=WRITTEN_BACK_S) == "initialized"
        assert equal(rig)
        stamp = known(rig).stamp
        assert stamp is not None
        rig.cycle.forget_stamps(None)
        assert known(rig).stamp == stamp


@pytest.mark.parametrize("closed", [True, False], ids=["closed meanwhile", "still open"])
def test_a_restart_believes_no_young_stamp(rig: Rig, *, closed: bool) -> None:
    """Another process heard nothing of what was written while none ran, so it reads what may have been written."""
    with written_in_secret(rig):
        rig.restart()
        if not closed:
            assert sync(rig) == "initialized"
    rig.restart()
    if closed:
        assert sync(rig) == "initialized"
    assert equal(rig)


def test_a_restart_with_nothing_changed_uploads_nothing(rig: Rig) -> None:
    """What is read again is equal; and once it was old enough when it was read, it is not read by the next one."""
    sync(rig)
    uploads = rig.emulator.request_log.count("upload")
    assert known(rig).stamp is not None
    rig.restart()
    assert known(rig).stamp is None
    assert sync(rig, age_s=WRITTEN_BACK_S) == "unchanged"
    rig.restart()
    assert known(rig).stamp is not None
    assert sync(rig, age_s=WRITTEN_BACK_S) == "unchanged"
    assert rig.emulator.request_log.count("upload") == uploads


def test_a_forced_push_believes_no_stamp(rig: Rig) -> None:
    """It reads all there is."""
    with written_in_secret(rig):
        assert sync(rig, SyncMode.FORCED) == "initialized"
        assert equal(rig)


def test_a_forced_push_makes_anew_only_what_changed(rig: Rig) -> None:
    """What it reads and finds unchanged is not compressed again."""
    for number in range(60):
        rig.write(f"many/{number}", str(number) * 60_000)
    sync(rig)
    folder = next((rig.folder / "cache").rglob("chunks"))
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sync(rig, SyncMode.FORCED) == "initialized"
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    rig.write("f", "1" * 100)
    assert sync(rig, SyncMode.FORCED) == "initialized"
    kept = {path.name for path in folder.iterdir()} & before.keys()
    assert len(kept) == len(before) - 1


def test_the_other_name_of_a_closed_file(rig: Rig) -> None:
    """It was closed by one of its names; both are read."""
    os.link(rig.workspace / "f", rig.workspace / "g")
    with written_in_secret(rig):
        pass
    rig.cycle.forget_stamps({"g"})
    assert sync(rig) == "initialized"
    assert equal(rig)
    assert rig.arrived()["g"] == rig.arrived()["f"]


@pytest.mark.parametrize("how", ["closed", "missed", "forced"])
def test_a_secret_that_is_taken_out_in_secret(rig: Rig, how: str) -> None:
    """A file that is held back is looked at again, too."""
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
            rig.cycle.forget_stamps({"f"} if how == "closed" else None)
        assert sync(rig, SyncMode.FORCED if how == "forced" else SyncMode.CHANGED) == "initialized"
        assert equal(rig)
