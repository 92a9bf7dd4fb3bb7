"""Kept chunks only save work: each archive is byte for byte what it would be without them.

The same changes are synced with the chunks kept, removed and damaged between any two syncs, and each time the sandbox
equals the workspace in the end. The tests show that one sync is enough; that no change is lost during a
sync; that no torn file counts as done; that excluded files and keys are in neither the archive nor the spool; that the
spool stays within twice the archive; and that nothing unchanged is uploaded. Signals, logs, memory and CPU are tested
with the real command.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random

import pytest

from syncd.archive.chunk_store import _FOOTER_BYTES
from syncd.core.directories import directories_for
from syncd.sync.outcome import Outcome
from tests.clock import LATER_S
from tests.fuzz.operations import tree
from tests.integration.sync_rig import KEY, Rig, rigged
from tests.system.rig import emptied

# All paths have this time, so that only the changes make two archives differ.
THEN_NS = 1_700_000_000_000_000_000
LARGE = "large/a"  # stored in several reads


class SpoolRig:
    """A rig whose spool can be damaged, and whose sandbox holds exactly the last archive.

    Its workspace of several chunks is not in the sandbox yet. `made` counts the chunks that syncs have made.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.made = 0
        self.most_bytes = 0
        self.archive_bytes = 0
        # Remains of an older archive would hide what a newer one lacks.
        rig.emulator.faults.on("initialize", "before", lambda _: emptied(rig.sandbox.workspace))
        # Programs run in real time: wait for each before the emulator answers.
        rig.emulator.faults.on("execution-logs", "before", lambda _: rig.sandbox.wait())
        rig.clock.wall = LATER_S
        rig.meanwhile = self.measure
        chance = Random(8)
        self.write(LARGE, chance.randbytes(1_300_000))
        for number in range(5):  # each a chunk of its own
            self.write(f"middle/{number}", chance.randbytes(900) * 600)
        for number in range(20):
            self.write(f"small/{number % 4}/{number}", chance.randbytes(40) * 50)
        self.settle_times()

    @property
    def work(self) -> Path:
        return self.rig.workspace

    @property
    def spool(self) -> Path:
        return Path(directories_for(str(self.work), self.rig.environ).spool) / "chunks"

    def chunks(self) -> list[Path]:
        """The files of stored chunks; none if something else has their place."""
        return sorted(path for path in self.spool.glob("*") if path.is_file())

    def stored(self) -> set[tuple[Path, int]]:
        """The files of stored chunks, each with the time at which it was made."""
        return {(path, path.lstat().st_ctime_ns) for path in self.chunks()}

    def chunks_of(self, *paths: str) -> list[Path]:
        """The chunks that hold these files' headers."""
        found = []
        for chunk in self.chunks():
            tar = inflated_chunk(chunk)
            if any(path.encode() + b"\0" in tar for path in paths):
                found.append(chunk)
        assert len(found) == len(paths)
        return found

    def inflated(self) -> bytes:
        """The content of all stored chunks."""
        return b"".join(inflated_chunk(chunk) for chunk in self.chunks())

    def measure(self) -> None:
        """Record the largest size of the spool."""
        sizes = []
        if self.spool.is_dir():
            for name in os.listdir(self.spool):
                with contextlib.suppress(FileNotFoundError):  # a thread of the packer has renamed it meanwhile
                    sizes.append((self.spool / name).lstat().st_size)
        self.most_bytes = max(self.most_bytes, sum(sizes))

    def write(self, path: str, content: bytes) -> None:
        file = self.work / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def settle_times(self) -> None:
        for path in (self.work, *self.work.rglob("*")):
            if path.lstat().st_mtime_ns != THEN_NS:
                os.utime(path, ns=(THEN_NS, THEN_NS), follow_symlinks=False)

    def sync(self) -> Outcome:
        """Sync, after which both sides must be equal, by at most one upload."""
        before, stored = self.rig.uploads, self.stored()
        outcome, _ = self.rig.sync()
        assert tree(self.rig.sandbox.workspace) == tree(self.work)
        self.made += len(self.stored() - stored)
        uploads = self.rig.uploads - before
        assert uploads == (1 if outcome.sync else 0), "a damaged archive was taken"
        if outcome.sync:
            self.archive_bytes = max(self.archive_bytes, outcome.sync.archive_bytes)
        self.measure()
        return outcome


def inflated_chunk(chunk: Path) -> bytes:
    """The content of a chunk."""
    return zlib.decompressobj(-15).decompress(chunk.read_bytes()[:-_FOOTER_BYTES])


@contextlib.contextmanager
def make_rig(folder: Path) -> Iterator[SpoolRig]:
    folder.mkdir(exist_ok=True)
    with rigged(folder) as rig:
        yield SpoolRig(rig)


@pytest.fixture
def spool_rig(tmp_path: Path) -> Iterator[SpoolRig]:
    """The workspace, not in the sandbox yet."""
    with make_rig(tmp_path) as spool_rig:
        yield spool_rig


# Damage of chunk files. Each function damages all chunks that it gets.


def flip_body(chunks: list[Path]) -> None:
    for chunk in chunks:
        content = bytearray(chunk.read_bytes())
        content[len(content) // 3] ^= 4
        chunk.write_bytes(content)


def swap(chunks: list[Path]) -> None:
    """Each chunk gets the name of the next one."""
    contents = [chunk.read_bytes() for chunk in chunks]
    for chunk, content in zip(chunks, contents[1:] + contents[:1], strict=True):
        chunk.write_bytes(content)


def replace_by_folder(chunks: list[Path]) -> None:
    for chunk in chunks:
        chunk.unlink()
        chunk.mkdir()
        (chunk / "f").write_text("x")


# Changes of the whole spool between two syncs.


def _kept(spool_rig: SpoolRig) -> None:
    """Change nothing."""


def _spool_removed(spool_rig: SpoolRig) -> None:
    shutil.rmtree(spool_rig.rig.folder / "cache", ignore_errors=True)


def _spool_by_another(spool_rig: SpoolRig) -> None:
    chunks = spool_rig.spool
    if chunks.is_dir():
        shutil.rmtree(chunks)
    else:
        chunks.unlink(missing_ok=True)
    chunks.mkdir(parents=True, exist_ok=True)
    (chunks / "notes").mkdir()
    (chunks / "0.chunk").write_text("x")


def _spool_by_a_file(spool_rig: SpoolRig) -> None:
    if spool_rig.spool.is_dir():
        shutil.rmtree(spool_rig.spool)
        spool_rig.spool.write_text("x")


def _in_turn(*changes: Callable[[SpoolRig], None]) -> Callable[[SpoolRig], None]:
    """Return a change that is another one each time, and each of them before either parity of a sync."""
    turn = count()

    def change(spool_rig: SpoolRig) -> None:
        number = next(turn)
        changes[(number + number // len(changes)) % len(changes)](spool_rig)

    return change


# The changes of the workspace.


def _edit(spool_rig: SpoolRig) -> None:
    spool_rig.write("small/1/5", b"edited")


def _edit_large(spool_rig: SpoolRig) -> None:
    """Change one bit, with the same length and time."""
    with (spool_rig.work / LARGE).open("r+b") as file:
        file.seek(1_200_000)
        byte = file.read(1)
        file.seek(1_200_000)
        file.write(bytes([byte[0] ^ 1]))


def _rename(spool_rig: SpoolRig) -> None:
    (spool_rig.work / "middle/2").rename(spool_rig.work / "small/moved")
    (spool_rig.work / "small/3").rename(spool_rig.work / "small/three")


def _swap_contents(spool_rig: SpoolRig) -> None:
    """Two files of one length are exchanged: no path, size or time changes."""
    one, other = spool_rig.work / "middle/0", spool_rig.work / "middle/1"
    one.rename(spool_rig.work / "between")
    other.rename(one)
    (spool_rig.work / "between").rename(other)


def _delete(spool_rig: SpoolRig) -> None:
    (spool_rig.work / "middle/3").unlink()
    shutil.rmtree(spool_rig.work / "small/1")


# The last one restores an earlier content, whose chunk is no longer kept.
STORY = [_edit, _edit_large, _rename, _swap_contents, _delete, _edit_large]


def run_changes(spool_rig: SpoolRig, happens: Callable[[SpoolRig], None]) -> list[str]:
    """Run all changes, with an action on the spool before each sync and a new process for every other one.

    Returns the digests of the archives.
    """
    digests: list[str] = []
    for number, step in enumerate((_kept, *STORY)):
        step(spool_rig)
        spool_rig.settle_times()
        if digests:
            happens(spool_rig)
        if number % 2:
            spool_rig.rig.restart()
        outcome = spool_rig.sync()
        assert outcome.sync is not None, step.__name__
        digests.append(outcome.sync.sha256)
    return digests


def test_the_series_whatever_happens_to_the_spool(tmp_path: Path) -> None:
    """Kept, or removed, emptied or replaced before each sync: the same archives, the same syncs, bounded disk usage."""
    with make_rig(tmp_path / "kept") as kept, make_rig(tmp_path / "made anew") as anew:
        removed = _in_turn(_spool_removed, _spool_by_another, _spool_by_a_file)
        assert run_changes(kept, _kept) == run_changes(anew, removed)
        assert kept.made < 20 < 40 < anew.made
        for each in (kept, anew):
            assert each.most_bytes <= 2 * each.archive_bytes


@pytest.mark.parametrize(("damage", "restarted"), [(flip_body, True), (swap, True), (replace_by_folder, False)])
def test_damaged_chunks_are_made_again(
    spool_rig: SpoolRig, damage: Callable[[list[Path]], None], *, restarted: bool
) -> None:
    """Two chunks are damaged and a third changes: both sides are equal by one upload, now and by the next process."""
    spool_rig.sync()
    for change in (_edit, _edit_large):
        change(spool_rig)
        spool_rig.settle_times()
        if change is _edit:
            damage(spool_rig.chunks_of("middle/0", "middle/3"))
        if restarted:
            spool_rig.rig.restart()
        assert spool_rig.sync().word == "initialized"


def test_a_file_that_changes_while_it_is_read(spool_rig: SpoolRig) -> None:
    """Its chunk is for one archive only, and another sync sends the file as it is then."""
    spool_rig.sync()
    left = list(range(600))

    def writes_on() -> None:
        spool_rig.measure()
        if left:
            with (spool_rig.work / LARGE).open("r+b") as file:
                file.seek(100_000 * (left.pop() % 13))
                file.write(b"%04d" % len(left))

    spool_rig.rig.meanwhile = writes_on
    outcome, _ = spool_rig.rig.sync()
    left.clear()
    assert outcome.follow_up == outcome.torn == (LARGE,)
    spool_rig.rig.restart()
    for _ in range(2):  # what nothing has mended yet is named, by the next process too
        assert list(spool_rig.rig.warnings) == [f"torn:{LARGE}"]
    assert spool_rig.sync().word == "initialized"
    assert spool_rig.rig.cycle.warnings == []
    assert spool_rig.sync().word == "unchanged"
    spool_rig.rig.restart()
    assert spool_rig.rig.cycle.warnings == []
    assert spool_rig.sync().word == "unchanged"
    assert all(path.suffix == ".chunk" for path in spool_rig.chunks())


def test_a_path_that_becomes_excluded(spool_rig: SpoolRig) -> None:
    """A file that is ignored, becomes a link to outside or gets a secret's name is in no archive and no chunk."""
    outside = spool_rig.rig.folder / "outside"
    outside.mkdir()
    (outside / "0").write_bytes(b"0utside" * 300)
    for name in ("small/1/ignored", "small/2/plain"):
        spool_rig.write(name, b"5ecret")
    spool_rig.settle_times()
    spool_rig.sync()
    assert spool_rig.inflated().count(b"5ecret") == 2
    spool_rig.write(".syncdignore", b"ignored\n")
    (spool_rig.work / "small/2/plain").rename(spool_rig.work / "small/2/.env")
    (spool_rig.work / "middle").rename(spool_rig.rig.folder / "middle")
    (spool_rig.work / "middle").symlink_to(outside)
    spool_rig.rig.sync()
    there = tree(spool_rig.rig.sandbox.workspace)
    assert ".syncdignore" in there
    assert not {"small/1/ignored", "small/2/.env", "middle", "middle/0"} & set(there)
    assert b"5ecret" not in spool_rig.inflated()
    assert b"0utside" not in spool_rig.inflated()


def test_the_spool_holds_no_key(spool_rig: SpoolRig) -> None:
    """It holds only what is uploaded anyway, in private folders, and neither the key nor a signed URL."""
    spool_rig.sync()
    _edit(spool_rig)
    spool_rig.sync()
    for folder in (spool_rig.spool, spool_rig.spool.parent, spool_rig.spool.parent.parent):
        assert folder.stat().st_mode & 0o077 == 0
    kept = b"".join(path.read_bytes() for path in spool_rig.chunks()) + spool_rig.inflated()
    for secret in (KEY, "X-Goog", "http://"):
        assert secret.encode() not in kept
