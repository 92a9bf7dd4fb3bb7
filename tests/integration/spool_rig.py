"""A rig whose spool can be damaged, and the ways to damage chunks."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from random import Random

import pytest

from syncd.archive.chunk_store import ChunkStore, Piece
from syncd.core.directories import directories_for
from syncd.sync import workspace
from syncd.sync.outcome import Outcome
from tests.clock import LATER_S
from tests.fuzz.operations import tree
from tests.integration.sync_rig import RecordingObserver, Rig, rigged
from tests.system.rig import emptied

# All paths have this time, so that only the changes make two archives differ.
THEN_NS = 1_700_000_000_000_000_000
LARGE = "large/a"  # stored in several reads


class CountingStore(ChunkStore):
    """The real store, which counts the chunks that are built."""

    made = 0

    def create(self) -> tuple[str, FileIO]:
        self.made += 1
        return super().create()


class EmptyStore(CountingStore):
    """A store that never finds a piece."""

    def get(self, key: str) -> Piece | None:
        return None


class SpoolRig:
    """A rig whose spool can be damaged, and whose sandbox holds exactly the last archive."""

    def __init__(self, rig: Rig, store_type: type[CountingStore]) -> None:
        self.rig = rig
        self.stores: list[CountingStore] = []
        self.store_type = store_type
        self.most_bytes = 0
        self.archive_bytes = 0
        # Remains of an older archive would hide what a newer one lacks.
        rig.emulator.faults.on("initialize", "before", lambda _: emptied(rig.sandbox.workspace))
        # Programs run in real time: wait for each before the emulator answers.
        rig.emulator.faults.on("execution-logs", "before", lambda _: rig.sandbox.wait())
        rig.clock.wall = LATER_S
        rig.meanwhile = self.measure

    def store(self, folder: str) -> CountingStore:
        self.stores.append(self.store_type(folder))
        return self.stores[-1]

    @property
    def work(self) -> Path:
        return self.rig.workspace

    @property
    def made(self) -> int:
        return sum(store.made for store in self.stores)

    @property
    def spool(self) -> Path:
        return Path(directories_for(str(self.work), self.rig.environ).spool) / "chunks"

    def chunks(self) -> list[Path]:
        """The files of stored chunks; none if something else has their place."""
        return sorted(path for path in self.spool.iterdir() if path.is_file())

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

    def sync(self, observer: RecordingObserver | None = None) -> Outcome:
        """Sync, after which both sides must be equal, by at most one upload."""
        before = self.rig.emulator.request_log.count("upload", 200)
        outcome, _ = self.rig.sync(observer=observer)
        self.check_equal()
        uploads = self.rig.emulator.request_log.count("upload", 200) - before
        assert uploads == (1 if outcome.sync else 0), "a damaged archive was taken"
        if outcome.sync:
            self.archive_bytes = max(self.archive_bytes, outcome.sync.archive_bytes)
        self.measure()
        return outcome

    def check_equal(self) -> None:
        assert tree(self.rig.sandbox.workspace) == tree(self.work)


def inflated_chunk(chunk: Path) -> bytes:
    """The content of a chunk, perhaps with some bytes from its footer."""
    content = chunk.read_bytes()
    inflate = zlib.decompressobj(-15)
    tar = bytearray()
    with contextlib.suppress(zlib.error):
        for start in range(0, len(content), 64):
            tar += inflate.decompress(content[start : start + 64])
    return bytes(tar)


@contextlib.contextmanager
def make_rig(folder: Path, store_type: type[CountingStore] = CountingStore) -> Iterator[SpoolRig]:
    """Give a workspace of several chunks that is not in the sandbox yet."""
    with rigged(folder) as rig, pytest.MonkeyPatch.context() as patch:
        spool_rig = SpoolRig(rig, store_type)
        patch.setattr(workspace, "ChunkStore", spool_rig.store)
        chance = Random(8)
        spool_rig.write(LARGE, chance.randbytes(1_300_000))
        for number in range(5):  # each a chunk of its own
            spool_rig.write(f"middle/{number}", chance.randbytes(900) * 600)
        for number in range(20):
            spool_rig.write(f"small/{number % 4}/{number}", chance.randbytes(40) * 50)
        spool_rig.settle_times()
        yield spool_rig


# Damage of chunk files. Each function damages all chunks that it gets.


def flip_body(chunks: list[Path]) -> None:
    for chunk in chunks:
        content = bytearray(chunk.read_bytes())
        content[len(content) // 3] ^= 4
        chunk.write_bytes(content)


def flip_footer(chunks: list[Path]) -> None:
    for place, chunk in enumerate(chunks):
        content = bytearray(chunk.read_bytes())
        content[-1 - place % 12] ^= 4  # the length or checksum
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


def delete(chunks: list[Path]) -> None:
    for chunk in chunks:
        chunk.unlink()


CHUNK_DAMAGES = [flip_body, flip_footer, swap, replace_by_folder, delete]
