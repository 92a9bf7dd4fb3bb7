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

from syncd.archive.chunk_store import ChunkStore
from syncd.archive.packer import Packed, Packer
from syncd.core.clock import SystemClock
from syncd.core.errors import WorkspaceError
from syncd.scan.file_reader import ContentReader
from syncd.scan.manifest import Kind, Manifest
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection, SelectionSettings

SECRET = b"5ecret"
CLOCK = SystemClock()
# Each place is hit within a second or two on an idle machine.
DEADLINE_S = 30.0
TRIES_AT_LEAST = 100
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


class Stage:
    """A workspace, a folder outside of it, and a folder for the entry that is swapped in."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.outside = folder / "outside"
        self.beside = folder / "beside"
        for path in (self.work, self.outside, self.beside, folder / "spool"):
            path.mkdir()
        (self.outside / "f").write_bytes(SECRET)
        (self.outside / "5ecret-name").write_bytes(SECRET)
        self.scanner = Scanner(str(self.work), Selection(SelectionSettings()))
        self.reader = ContentReader(str(self.work), CLOCK)
        self._store = ChunkStore(str(folder / "spool"))
        self._store.open()

    def look(self) -> Manifest:
        return self.scanner.scan().manifest

    def pack(self, manifest: Manifest) -> Packed:
        """Pack the manifest; assert that no bytes of the archive, names or contents, come from outside."""
        packed = Packer(str(self.work), self._store, CLOCK).pack(manifest)
        content = zlib.decompress(b"".join(packed.archive.blocks(1 << 16)), 31)
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
def stage(tmp_path: Path) -> Stage:
    """An empty workspace."""
    return Stage(tmp_path)


def test_a_directory_and_a_link_to_outside(stage: Stage) -> None:
    """The names are swapped during scan and packing: the link is left out, and its content is never read."""
    (stage.work / "d/e").mkdir(parents=True)
    for name in ("f", "e/f"):
        (stage.work / "d" / name).write_text("harmless")
    (stage.outside / "e").mkdir()
    (stage.outside / "e/f").write_bytes(SECRET)
    (stage.beside / "l").symlink_to(stage.outside)
    whole = stage.look()

    def once() -> str:
        stage.reader.digests(whole)
        packed = stage.pack(whole)
        manifest = stage.look()
        assert not [path for path in manifest if "5ecret" in path]
        assert "d" not in manifest or manifest["d"].kind is Kind.DIRECTORY
        if packed.follow_up:
            return "found a link while packing"
        if "d/f" in manifest and "d" not in stage.look():
            return "found the directory, then the link"
        if "d" not in manifest:
            return "listed, then no longer there"
        return ""

    with swapping(stage.work / "d", stage.beside / "l"):
        stage.until_hit({"found a link while packing", "listed, then no longer there"}, once)


def test_a_file_and_a_link_to_a_secret(stage: Stage) -> None:
    """Whatever the scan found, the link is never followed."""
    (stage.work / "f").write_bytes(b"harmle")  # of the secret's size
    (stage.beside / "l").symlink_to(stage.outside / "f")
    whole = stage.look()

    def once() -> str:
        stage.reader.digests(["f"])
        packed = stage.pack(whole)
        stage.look()
        return "a link while packing" if packed.follow_up else "a file while packing"

    with swapping(stage.work / "f", stage.beside / "l"):
        stage.until_hit({"a link while packing", "a file while packing"}, once)


def test_a_file_and_a_fifo(stage: Stage) -> None:
    """A FIFO without a writer does not block, and is not sent."""
    (stage.work / "f").write_bytes(b"harmle")
    os.mkfifo(stage.beside / "fifo")
    whole = stage.look()

    def once() -> str:
        stage.reader.digests(["f"])
        packed = stage.pack(whole)
        assert packed.warnings == []
        stage.look()
        return "a FIFO" if packed.follow_up else "a file"

    with swapping(stage.work / "f", stage.beside / "fifo"):
        stage.until_hit({"a FIFO", "a file"}, once)


def test_the_workspace_and_a_link_to_outside(stage: Stage) -> None:
    """The workspace itself must not be a link: it is refused, or it is the workspace."""
    (stage.work / "f").write_text("harmless")
    (stage.beside / "l").symlink_to(stage.outside)
    whole = stage.look()

    def once() -> str:
        try:
            assert list(stage.look()) == ["f"]
            stage.pack(whole)
        except WorkspaceError:
            return "refused"
        return "the workspace"

    with swapping(stage.work, stage.beside / "l"):
        stage.until_hit({"refused", "the workspace"}, once)


def test_a_file_and_a_directory_that_a_rule_leaves_out(stage: Stage) -> None:
    """A rule for directories is applied to the entry that is found, not to the one of an earlier listing."""
    for number in range(400):  # between the first name and the last look at one passes a while
        (stage.work / f"a{number}").touch()
    (stage.work / ".syncdignore").write_text("z/\n")
    (stage.work / "z").write_text("a file may leave")
    (stage.beside / "z").mkdir()
    (stage.beside / "z/private").write_bytes(SECRET)

    def once() -> str:
        manifest = stage.scanner.scan().manifest
        assert "z" not in manifest or manifest["z"].kind is Kind.FILE
        manifest = stage.scanner.scan({""}).manifest
        assert "z/private" not in manifest
        return "a file" if "z" in manifest else "none"

    with swapping(stage.work / "z", stage.beside / "z"):
        stage.until_hit({"a file", "none"}, once)


def test_an_ignore_file_and_a_link_to_outside(stage: Stage) -> None:
    """An ignore file that is a link has no rules, as in git: its target is neither applied nor shown."""
    (stage.work / ".gitignore").write_text("excluded\n")
    (stage.work / "excluded").write_bytes(SECRET)
    (stage.work / "f").write_text("harmless")
    (stage.outside / "rules").write_bytes(b"/f\n# " + SECRET)
    (stage.beside / "l").symlink_to(stage.outside / "rules")

    def once() -> str:
        manifest = stage.look()
        assert "f" in manifest
        return "a file" if "excluded" not in manifest else "a link"

    with swapping(stage.work / ".gitignore", stage.beside / "l"):
        stage.until_hit({"a file", "a link"}, once)


def test_a_hard_link_is_a_file_of_the_workspace(stage: Stage) -> None:
    """One name of a file cannot be told from another, so only this is promised: rules apply to the name in here."""
    os.link(stage.outside / "f", stage.work / "linked")
    os.link(stage.outside / "f", stage.work / ".env")
    assert list(stage.look()) == ["linked"]
