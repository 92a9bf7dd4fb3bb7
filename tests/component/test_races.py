"""Swapping names in the workspace, as fast as the machine can, never gets content from outside into an archive.

Another process exchanges two names in a tight loop while this one scans and packs; the test ends when the swap was hit
at each place that it lists. The content outside has a word that no archive may contain.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syncd.archive.packer import Packed
from syncd.core.clock import SystemClock
from syncd.model.entry import Kind
from syncd.model.manifest import Manifest
from syncd.scan.file_reader import ContentReader
from tests.component.pack_rig import PackRig, whole

SECRET = b"5ecret"
CLOCK = SystemClock()
# Each place is hit within a second or two on an idle machine.
DEADLINE_S = 60.0
TRIES_AT_LEAST = 30
HITS_AT_LEAST = 3

_SWAPPER = """
import ctypes, os, sys
here, there = (os.fsencode(path) for path in sys.argv[1:])
renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
if renameat2(-100, here, -100, there, 2):
    sys.exit(3)
print("begun", flush=True)
while True:
    renameat2(-100, here, -100, there, 2)
"""


@contextmanager
def swapping(here: Path, there: Path) -> Iterator[None]:
    """Exchange the two names without a pause until the end (renameat2(2), RENAME_EXCHANGE)."""
    swapper = subprocess.Popen([sys.executable, "-c", _SWAPPER, here, there], stdout=subprocess.PIPE)
    assert swapper.stdout is not None
    try:
        if not swapper.stdout.readline():
            pytest.skip("this file system cannot exchange two names")
        yield
    finally:
        swapper.kill()
        swapper.wait()
        swapper.stdout.close()


class RaceRig(PackRig):
    """A workspace, a folder outside of it, and a folder for the entry that is swapped in."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.outside = folder / "outside"
        self.beside = folder / "beside"
        self.outside.mkdir()
        self.beside.mkdir()
        (self.outside / "f").write_bytes(SECRET)
        (self.outside / "5ecret-name").write_bytes(SECRET)
        self.reader = ContentReader(str(self.work), CLOCK)

    def look(self) -> Manifest:
        return self.scan().manifest

    def packed(self, manifest: Manifest) -> Packed:
        """Pack the manifest; assert that no bytes of the archive, names or contents, come from outside."""
        self.start(clock=CLOCK)
        packed = self.pack(manifest)
        content = zlib.decompress(whole(packed.archive), 31)
        assert SECRET not in content
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            assert tar.getnames() == list(packed.manifest)
        return packed

    def until_hit(self, places: set[str], once: Callable[[], str]) -> None:
        """Repeat `once` until each place was hit; it returns the place, or ""."""
        hits: Counter[str] = Counter()
        ends_s = CLOCK.monotonic_s() + DEADLINE_S
        while hits.total() < TRIES_AT_LEAST or any(hits[place] < HITS_AT_LEAST for place in places):
            assert CLOCK.monotonic_s() < ends_s, f"hit too seldom: {dict(hits)} of {places}"
            hits[once()] += 1
        print(dict(hits))


@pytest.fixture
def rig(tmp_path: Path) -> RaceRig:
    return RaceRig(tmp_path)


def test_a_directory_and_a_link_to_outside(rig: RaceRig) -> None:
    """The names are swapped during scan and packing: the link is left out, and its content is never read."""
    (rig.work / "d/e").mkdir(parents=True)
    for name in ("f", "e/f"):
        (rig.work / "d" / name).write_text("harmless")
    (rig.outside / "e").mkdir()
    (rig.outside / "e/f").write_bytes(SECRET)
    (rig.beside / "l").symlink_to(rig.outside)
    everything = rig.look()

    def once() -> str:
        dict(rig.reader.digests(everything))
        packed = rig.packed(everything)
        manifest = rig.look()
        assert not [path for path in manifest if "5ecret" in path]
        assert "d" not in manifest or manifest["d"].kind is Kind.DIRECTORY
        if packed.follow_up:
            return "found a link while packing"
        if "d/f" in manifest and "d" not in rig.look():
            return "found the directory, then the link"
        if "d" not in manifest:
            return "listed, then no longer there"
        return ""

    with swapping(rig.work / "d", rig.beside / "l"):
        rig.until_hit({"found a link while packing", "listed, then no longer there"}, once)


@pytest.mark.parametrize("other", ["a link to a secret", "a FIFO"])
def test_a_file_and_what_is_none(rig: RaceRig, other: str) -> None:
    """Whatever the scan found, a link is never followed, and a FIFO without a writer does not block."""
    (rig.work / "f").write_bytes(b"harmle")  # of the secret's size
    if other == "a FIFO":
        os.mkfifo(rig.beside / "other")
    else:
        (rig.beside / "other").symlink_to(rig.outside / "f")
    everything = rig.look()

    def once() -> str:
        dict(rig.reader.digests(["f"]))
        packed = rig.packed(everything)
        assert packed.unread == {}
        rig.look()
        return other if packed.follow_up else "a file"

    with swapping(rig.work / "f", rig.beside / "other"):
        rig.until_hit({other, "a file"}, once)


def test_a_hard_link_is_a_file_of_the_workspace(rig: RaceRig) -> None:
    """One name of a file cannot be told from another, so only this is promised: rules apply to the name in here."""
    os.link(rig.outside / "f", rig.work / "linked")
    os.link(rig.outside / "f", rig.work / ".env")
    assert list(rig.look()) == ["linked"]
