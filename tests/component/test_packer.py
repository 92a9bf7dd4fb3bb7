"""The archive of a real tree: reproducible, valid for every reader, and exact for files that do not change."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.archive.chunk_store import Archive
from syncd.archive.packer import Packed
from syncd.archive.snapshotter import SyncMode
from syncd.core.clock import Clock
from syncd.model.manifest import Manifest
from tests.component.pack_rig import MIB, InterferingClock, PackRig, whole, workspace_in


@pytest.fixture
def rig(tmp_path: Path) -> PackRig:
    return PackRig(tmp_path)


def packed_anew(
    rig: PackRig,
    manifest: Manifest | None = None,
    check: Callable[[], None] = lambda: None,
    clock: Clock | None = None,
) -> Packed:
    """Pack into a new spool, so that nothing is reused."""
    rig.spool = rig.spool.with_name(f"{rig.spool.name}-")
    rig.start(check, clock)
    return rig.pack(manifest)


def members(archive: Archive) -> dict[str, bytes | None]:
    """Names with contents, None for what is not a file; the archive must be valid to its end."""
    with tarfile.open(fileobj=io.BytesIO(whole(archive)), mode="r:gz", errors="surrogateescape") as tar:
        found = {}
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            found[info.name] = file.read() if file else None
        return found


def test_the_same_tree_gives_the_same_bytes(rig: PackRig) -> None:
    """The order of creation, the owner, the inode and the time of packing do not change the archive."""
    for number in range(300):
        rig.write(f"d{number % 9}/f{number}", hashlib.sha256(b"%d" % number).digest() * number)
    for path in [*rig.work.rglob("*")]:
        os.utime(path, (1_700_000_000, 1_700_000_000))
    first = whole(packed_anew(rig).archive)
    assert whole(packed_anew(rig).archive) == first
    other = rig.folder / "other"
    other.mkdir()
    for path in sorted(rig.work.rglob("*"), reverse=True):
        if path.is_file():
            copy = other / path.relative_to(rig.work)
            copy.parent.mkdir(exist_ok=True)
            shutil.copy2(path, copy)
    for path in [*other.rglob("*")]:
        os.utime(path, (1_700_000_000, 1_700_000_000.9))
    rig.work = other
    assert whole(packed_anew(rig).archive) == first


@pytest.mark.parametrize("change", ["append", "rewrite", "cut", "chmod"])
def test_a_small_file_that_keeps_changing(rig: PackRig, change: str) -> None:
    """After some readings it is packed as it was read last; what is no beginning of the file counts as unknown.

    In any case its stamp is another one by then, so that it is read again.
    """
    path = rig.write("f", b"x" * 100)
    left = iter(range(90, 0, -1))

    def happens() -> None:
        if change == "append":
            with path.open("ab") as file:
                file.write(b"y")
        elif change == "rewrite":
            os.utime(path, ns=(next(left), next(left)))
        elif change == "chmod":
            path.chmod(0o600 + next(left) % 8)
        else:
            os.truncate(path, next(left))

    packed = packed_anew(rig, clock=InterferingClock(happens=happens))
    content = members(packed.archive)["f"]
    assert content is not None
    entry = packed.manifest["f"]
    if change == "cut":
        assert (entry.digest, entry.stamp, entry.sent_digest) == (b"", None, hashlib.sha256(content).digest())
        assert packed.follow_up == ["f"]
    else:
        assert (entry.digest, packed.follow_up) == (hashlib.sha256(content).digest(), [])
        assert path.read_bytes().startswith(content)
        assert entry.stamp != rig.scan().manifest["f"].stamp
    assert 80 < len(content) <= 105
    assert set(content) <= set(b"xy\0")


@pytest.mark.parametrize("to_bytes", [0, MIB, 2 * MIB, 2 * MIB + 5, 3 * MIB - 1, 3 * MIB + 1, 5 * MIB])
@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_large_file_that_changes_while_it_is_read(rig: PackRig, to_bytes: int, at: int) -> None:
    """Cut or grown, its member keeps the length of its header, and the rest is complete. Where it was cut, another sync
    is asked for; where it has grown, it is whole, and changed since.
    """
    path = rig.write("big", b"A" * (3 * MIB))
    rig.write("zzz", b"after it")
    manifest = rig.scan().manifest
    checks = iter(range(1, 1000))

    def check() -> None:
        if next(checks) == at:  # of the chunk, then of each piece
            os.truncate(path, to_bytes)

    packed = packed_anew(rig, manifest, check)
    found = members(packed.archive)
    assert found["zzz"] == b"after it"
    assert len(found["big"] or b"") == 3 * MIB
    assert set(found["big"] or b"") <= set(b"A\0")
    entry = packed.manifest["big"]
    if to_bytes > 3 * MIB:
        assert (packed.follow_up, entry.digest) == ([], hashlib.sha256(b"A" * (3 * MIB)).digest())
        assert entry.stamp != rig.scan().manifest["big"].stamp
    else:
        assert (packed.follow_up, entry.digest, entry.stamp) == (["big"], b"", None)


SWAPS: dict[str, Callable[[Path, Path], object]] = {
    "a link": lambda path, outside: path.symlink_to(outside),
    "nothing": lambda path, outside: None,
    "a FIFO": lambda path, outside: os.mkfifo(path),
    "a folder": lambda path, outside: path.mkdir(),
}


@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS)
@pytest.mark.parametrize("what", ["d", "d/e", "d/e/f"])
def test_a_path_that_is_replaced_after_the_scan(rig: PackRig, swap: Callable[[Path, Path], object], what: str) -> None:
    """It never leads outside; another sync follows for it, and the rest is packed."""
    rig.write("a")
    rig.write("d/e/f", b"harmless")
    rig.write("z")
    manifest = rig.scan().manifest
    path = rig.work / what
    path.rename(rig.folder / "moved")
    outside = rig.folder / "outside"
    (outside / "e").mkdir(parents=True)
    for secret in ("f", "e/f"):
        (outside / secret).write_text("5ecret")
    swap(path, outside / "f" if what == "d/e/f" else outside)
    packed = rig.pack(manifest)
    found = members(packed.archive)
    assert b"5ecret" not in zlib.decompress(whole(packed.archive), 31)
    assert "d/e/f" not in found
    assert {"a", "z"} <= set(found)
    assert packed.follow_up == ["d/e/f"]
    assert "d/e/f" not in packed.manifest


def test_what_was_packed_late_is_not_taken_for_newer(tmp_path: Path) -> None:
    """No event tells once more of what the scan for another sandbox has found since."""
    (work := tmp_path / "work").mkdir()
    for name in "fg":
        (work / name).write_text("before")
    workspace = workspace_in(tmp_path)
    one, other = workspace.snapshotter("main"), workspace.snapshotter("blue")
    late = one.scan(Manifest(), SyncMode.CHANGED).manifest
    (work / "f").write_text("what is here now")
    now = other.scan(Manifest(), SyncMode.CHANGED).manifest["f"]
    one.pack(late, ["g"])
    assert other.scan(Manifest(), SyncMode.CHANGED, ()).manifest["f"].size_bytes == now.size_bytes
