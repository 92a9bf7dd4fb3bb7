"""Stored chunks between snapshots: reused, damaged, missing, discarded; and the archive of them."""

from __future__ import annotations

import gzip
import io
import os
import resource
import shutil
import tarfile
import zlib
from pathlib import Path

import pytest

from syncd.archive.archive import Archive, DamagedPiece
from syncd.archive.chunk_store import ChunkStore, Piece
from syncd.archive.codec import Codec
from syncd.archive.deflate import Sum, deflated
from syncd.archive.packer import Packed, Packer
from syncd.core.clock import SystemClock
from syncd.core.errors import Stop
from syncd.core.interrupt import Interrupt
from syncd.scan.manifest import Manifest, carry_over_digests
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection, SelectionSettings


class Later(SystemClock):
    """A clock an hour ahead, for which no file is too recent."""

    def wall_s(self) -> float:
        return super().wall_s() + 3600


class Bench:
    """A workspace, a spool, and snapshots of the workspace in the spool."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "work"
        self.spool = folder / "spool"
        self.spool.mkdir()
        self.opened: list[str] = []
        for number in range(60):
            file = self.workspace / f"d{number % 7}" / f"f{number}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.urandom(100) * 400)
        self.known: Manifest = {}
        self.open_store()

    def open_store(self) -> None:
        """As a new process would."""
        self.store = ChunkStore(str(self.spool))
        self.store.open()
        self.packer = Packer(str(self.workspace), self.store, Later())

    def snapshot(self, codec: Codec = Codec.FAST) -> Packed:
        scan = Scanner(str(self.workspace), Selection(SelectionSettings())).scan()
        packed = self.packer.pack(carry_over_digests(self.known, scan.manifest), codec)
        self.known = packed.manifest
        return packed

    def chunk_files(self) -> list[Path]:
        return sorted((self.spool / "chunks").iterdir())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def bytes_of(archive: Archive) -> bytes:
    content = b"".join(archive.blocks(1000))
    assert len(content) == archive.size_bytes
    return content


def contents(archive: Archive) -> dict[str, bytes]:
    """The files that Python's stream reader finds, which stops after the first of several gzip members."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(bytes_of(archive)), mode="r|gz") as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:
                found[member.name] = file.read()
    return found


def wanted(bench: Bench) -> dict[str, bytes]:
    return {str(p.relative_to(bench.workspace)): p.read_bytes() for p in bench.workspace.rglob("*") if p.is_file()}


def test_the_joined_pieces_are_one_gzip_member(bench: Bench) -> None:
    """It holds every file, and nothing follows it."""
    archive = bench.snapshot().archive
    assert len(archive.pieces) > 1
    assert contents(archive) == wanted(bench)
    assert len(gzip.decompress(bytes_of(archive))) % 10240 == 0


def test_only_the_changed_chunk_is_made_again(bench: Bench) -> None:
    """All other pieces are the same files as in the last snapshot."""
    before = bench.snapshot().archive
    (bench.workspace / "d3" / "f3").write_bytes(b"changed")
    after = bench.snapshot().archive
    assert contents(after) == wanted(bench)
    assert len(set(after.pieces) - set(before.pieces)) == 1


def test_another_codec_makes_all_chunks_again(bench: Bench) -> None:
    """The chunks of one codec are not used for the other, which gives the same contents."""
    fast = bench.snapshot().archive
    assert contents(fast) == wanted(bench)
    dense = bench.snapshot(Codec.DENSE).archive
    assert contents(dense) == wanted(bench)
    assert not {piece.key for piece in dense.pieces} & {piece.key for piece in fast.pieces}
    (bench.workspace / "d3" / "f3").write_bytes(b"changed")
    after = bench.snapshot(Codec.DENSE).archive
    assert contents(after) == wanted(bench)
    assert len(set(after.pieces) - set(dense.pieces)) == 1


def test_the_dense_codec_compresses_like_gzip() -> None:
    """On source code it is at least almost a tenth smaller than the fast one."""
    text = Path(tarfile.__file__).read_bytes()
    fast, dense = (len(deflated(text, codec)[0]) for codec in (Codec.FAST, Codec.DENSE))
    assert dense < 0.93 * fast
    assert dense < 1.02 * len(zlib.compress(text, 6))


def test_chunks_survive_a_restart(bench: Bench) -> None:
    """A new store finds them, and removes unfinished ones."""
    before = bench.snapshot().archive
    (bench.spool / "chunks" / "7.loose").write_bytes(b"half")
    bench.open_store()
    after = bench.snapshot().archive
    assert after.pieces == before.pieces
    assert [file.suffix for file in bench.chunk_files()] == [".chunk"] * len(before.pieces)


def test_an_archive_is_recognized_by_its_content(bench: Bench) -> None:
    """The same tree has the same identity, other content has another, and unknown content has none."""
    first = bench.snapshot().archive.identity
    bench.open_store()
    assert bench.snapshot().archive.identity == first != ""
    (bench.workspace / "d0" / "f0").write_bytes(b"other")
    assert bench.snapshot().archive.identity not in ("", first)
    loose = Piece("7.loose", "", 1, 0, Sum())
    assert Archive.of([loose]).identity == ""


def test_a_reused_chunk_gives_the_same_bytes(bench: Bench) -> None:
    """The archive is the same as without stored chunks."""
    kept = bytes_of(bench.snapshot().archive)
    for file in bench.chunk_files():
        file.unlink()
    bench.open_store()
    assert bytes_of(bench.snapshot().archive) == kept


@pytest.mark.parametrize("harm", ["cut", "emptied", "grown", "deleted", "foot", "another's", "folder", "link"])
def test_an_invalid_chunk_is_made_again(bench: Bench, harm: str) -> None:
    """It is found when it is reused, before anything is sent."""
    bench.snapshot()
    victim = bench.chunk_files()[0]
    content = victim.read_bytes()
    match harm:
        case "cut":
            victim.write_bytes(content[:-10])
        case "emptied":
            victim.write_bytes(b"")
        case "grown":
            victim.write_bytes(content + b"x")
        case "deleted":
            victim.unlink()
        case "foot":
            victim.write_bytes(content[:-30] + bytes(30))
        case "another's":
            victim.write_bytes(bench.chunk_files()[1].read_bytes())
        case "folder":
            victim.unlink()
            (victim / "inner").mkdir(parents=True)
        case "link":
            victim.unlink()
            victim.symlink_to(victim)
    bench.open_store()
    assert contents(bench.snapshot().archive) == wanted(bench)


def test_each_byte_of_the_footer_is_checked(bench: Bench) -> None:
    """A wrong length or checksum in it never reaches an archive."""
    kept = bytes_of(bench.snapshot().archive)
    for from_end in range(1, 73):
        victim = bench.chunk_files()[0]
        content = bytearray(victim.read_bytes())
        content[-from_end] ^= 1
        victim.write_bytes(content)
        bench.open_store()
        archive = bench.snapshot().archive
        try:
            assert bytes_of(archive) == kept
        except DamagedPiece as damage:
            bench.packer.forget(damage.piece)
            assert bytes_of(bench.snapshot().archive) == kept


def test_one_damaged_chunk_has_all_checked(bench: Bench) -> None:
    """Only the damaged ones are made again."""
    kept = bytes_of(bench.snapshot().archive)
    chunks = bench.chunk_files()
    assert len(chunks) > 3
    before = {chunk: chunk.stat().st_mtime_ns for chunk in chunks}
    for victim in chunks[1:]:
        with victim.open("r+b") as file:
            file.write(b"\0\0\0\0")
    with pytest.raises(DamagedPiece) as damage:
        bytes_of(bench.snapshot().archive)
    bench.packer.forget(damage.value.piece)
    assert bench.chunk_files() == chunks[:1]
    assert bytes_of(bench.snapshot().archive) == kept
    assert chunks[0].stat().st_mtime_ns == before[chunks[0]]


def test_a_chunk_with_changed_bytes_is_never_sent_completely(bench: Bench) -> None:
    """A flipped bit is found while it is sent; the archive is not finished, and the next one is right."""
    archive = bench.snapshot().archive
    victim = bench.chunk_files()[1]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    sent: list[bytes] = []
    with pytest.raises(DamagedPiece) as damage:
        sent.extend(archive.blocks(1000))
    assert sum(map(len, sent)) < archive.size_bytes
    bench.packer.forget(damage.value.piece)
    assert contents(bench.snapshot().archive) == wanted(bench)


def test_a_chunk_that_is_lost_while_it_is_sent(bench: Bench) -> None:
    """Other programs may clear the spool at any time."""
    archive = bench.snapshot().archive
    bench.chunk_files()[-1].unlink()
    with pytest.raises(DamagedPiece):
        bytes_of(archive)


@pytest.mark.parametrize("by_a_file", [False, True], ids=["gone", "a-file"])
def test_a_removed_spool_is_created_again(bench: Bench, *, by_a_file: bool) -> None:
    """While the process runs and before the next one, without any repair by a person."""
    kept = bytes_of(bench.snapshot().archive)
    for restarted in (False, True):
        shutil.rmtree(bench.spool)
        if by_a_file:
            bench.spool.mkdir()
            (bench.spool / "chunks").write_text("x")
        if restarted:
            bench.open_store()
        archive = bench.snapshot().archive
        if not restarted:
            with pytest.raises(DamagedPiece) as damage:
                bytes_of(archive)
            bench.packer.forget(damage.value.piece)
            archive = bench.snapshot().archive
        assert bytes_of(archive) == kept


def test_the_spool_holds_only_the_last_snapshot(bench: Bench) -> None:
    """Disk usage does not grow with the number of snapshots."""
    bench.snapshot()
    for number in range(5):
        (bench.workspace / "d1" / "f1").write_bytes(b"%d" % number)
        archive = bench.snapshot().archive
    assert len(bench.chunk_files()) == len(archive.pieces)


def test_a_recent_file_is_read_again(bench: Bench) -> None:
    """Its stamp is not trusted, so its chunk is made of its content now."""
    bench.packer = Packer(str(bench.workspace), bench.store, SystemClock())
    bench.snapshot()
    victim = bench.workspace / "d2" / "f2"
    status = victim.stat()
    victim.write_bytes(b"X" * status.st_size)
    os.utime(victim, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert contents(bench.snapshot().archive) == wanted(bench)


def test_an_empty_workspace_is_a_valid_archive(tmp_path: Path) -> None:
    """It has two blocks of zeros only."""
    bench = Bench(tmp_path)
    assert contents(bench.packer.pack({}).archive) == {}


@pytest.mark.parametrize("room_bytes", [0, 1, 5_000, 99_999, 100_000])
def test_a_full_disk_leaves_nothing_unfinished(bench: Bench, room_bytes: int) -> None:
    """Else each further attempt would take more space and another descriptor."""
    (bench.workspace / "00-large").write_bytes(os.urandom(300_000))
    descriptors = len(os.listdir("/proc/self/fd"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            bench.snapshot()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [file.name for file in bench.chunk_files() if file.suffix != ".chunk"] == []
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("checks", [1, 2, 3, 6, 30])
def test_a_stop_leaves_nothing_unfinished(bench: Bench, checks: int) -> None:
    """At any point of a snapshot, no unfinished piece and no descriptor stays."""
    (bench.workspace / "00-large").write_bytes(os.urandom(8 << 20))
    descriptors = len(os.listdir("/proc/self/fd"))
    interrupt = Interrupt()
    left = iter(range(checks - 1, -1, -1))

    def check() -> None:
        if next(left) == 0:
            interrupt.request()
        interrupt.check()

    bench.packer = Packer(str(bench.workspace), bench.store, Later(), check)
    with pytest.raises(Stop):
        bench.snapshot()
    assert [file.name for file in bench.chunk_files() if file.suffix != ".chunk"] == []
    assert len(os.listdir("/proc/self/fd")) == descriptors
