"""A file that cannot be read to its end: the sandbox keeps its complete version until the file can be read."""

from __future__ import annotations

import os

import pytest

from tests.integration.sync_rig import RecordingObserver, Rig

MIB = 1 << 20


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """A workspace of a small file and a large one, both in the sandbox."""
    bare.write("a.txt", "small")
    bare.write("big", "1" * 3 * MIB)
    bare.sync()
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
