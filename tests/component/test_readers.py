"""One archive of a difficult tree, read by independent programs: each must find the same listing in it.

The archive is the second one of its workspace, so most chunks are reused and some were built for it. A listing has each
entry's path, kind, permissions, whole-second time, and content or target.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import shutil
import stat
import subprocess
import zlib
from pathlib import Path
from typing import NamedTuple

import pytest

from syncd.archive.chunk_store import Archive
from syncd.archive.snapshotter import SyncMode
from syncd.model.manifest import Manifest
from tests.component.pack_rig import MIB, workspace_in

# At and around a block, a record of a tar, and what is read in one piece.
SIZES = (0, 1, 511, 512, 513, 1024, 10_239, 10_240, 10_241, MIB - 1, MIB, MIB + 1, 2 * MIB + 511)
NAMES = (
    b"-rf",
    b" ",
    b" lead and trail ",
    b"tab\tline\nreturn\rbell\x07escape\x1b[2Jdelete\x7f",
    b"back\\slash\\",
    b"'quotes\"$(`|;&*?[]{}",
    b"..two-dots",
    b"...",
    b".hidden",
    b"100%41%",
    b"name=value 12 path=x",
    b"\xff\xfe no UTF-8 \x80",
    "n\u0308 twin".encode(),
    "\u00f1 other".encode(),
    "\u6f22\u5b57 \U0001f980 \u05e9\u05dc\u05d5\u05dd".encode(),
    b"99/" + b"a" * 96,  # 99 bytes, and the same with one more and one more: 100 fill the field of a header
    b"100/" + b"a" * 96,
    b"101/" + b"a" * 97,
    b"p" * 155 + b"/" + b"n" * 100,  # the longest that its two fields take together
    b"q" * 156 + b"/" + b"n" * 100,
    b"r" * 155 + b"/" + b"n" * 101,
    b"s" * 255,
    b"t" * 255 + b"/" + b"u" * 255,
    b"/".join(b"deep-%03d-" % depth + b"d" * 40 for depth in range(30)) + b"/end",
    b"\xe9" * 120,
    "\u00fc".encode() * 110,
    b"long\nand broken\n" * 12,
    b"x" * 120 + b"\n15 path=evil\n",
)
MODES = (0o400, 0o444, 0o600, 0o644, 0o664, 0o711, 0o755, 0o777, 0o4755, 0o2755, 0o1644)
# Nanoseconds since 1970: before it, at it, with and without a fraction, and past what 31 and 33 bits of seconds hold.
TIMES_NS = (-86_400_000_000_001, -1, 0, 1, 999_999_999, 1_700_000_000_123_456_789, 2_200_000_000 * 10**9, 9 * 10**18)
TARGETS = (
    b"plain",
    b"../links/plain",
    b".",
    b"no UTF-8 \xff",
    b"line\nend",
    b"a" * 100,
    b"a" * 101,
    "\u00fc".encode() * 60,
    b"\xfe" * 130,
    b"down/" * 500 + b"end",
)


class Line(NamedTuple):
    """The listing's line for one path. `what` is a file's SHA-256 or a link's target, in hexadecimal."""

    path: bytes
    kind: str
    mode: int
    mtime_s: int
    what: str


Listing = list[Line]


def _write(top: bytes, path: bytes, content: bytes) -> bytes:
    file = os.path.join(top, path)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    with open(file, "wb") as writer:
        writer.write(content)
    return file


def _make_tree(top: bytes) -> None:
    chance = random.Random(20)  # the same tree each time
    for number, name in enumerate(NAMES):
        _write(top, b"names/" + name, b"content %d" % number)
    for size in SIZES:
        half = chance.randbytes(size // 2)
        _write(top, b"sizes/%d" % size, half + b"text " * ((size - len(half)) // 5) + b"." * ((size - len(half)) % 5))
    for mode in MODES:
        os.chmod(_write(top, b"modes/%o" % mode, b"%o" % mode), mode)
    for number in range(300):
        _write(top, b"many/%d/%d" % (number % 11, number), chance.randbytes(3_000))
    for name, mode in ((b"empty", 0o755), (b"own", 0o700), (b"sticky", 0o1777), (b"groups", 0o2775)):
        os.makedirs(os.path.join(top, b"directories", name, b"inner"))
        os.chmod(os.path.join(top, b"directories", name), mode)
    os.mkdir(os.path.join(top, b"links"))
    for number, target in enumerate(TARGETS):
        os.symlink(target, os.path.join(top, b"links/%02d" % number))
    os.symlink(b"../names/..two-dots", os.path.join(top, b"links", b"l" * 255))
    # Last, since all of the above turns the times of directories.
    for number, time_ns in enumerate(TIMES_NS):
        os.utime(_write(top, b"times/%d" % number, b"x"), ns=(time_ns, time_ns))
    os.utime(os.path.join(top, b"directories/empty"), ns=(TIMES_NS[0], TIMES_NS[0]))
    os.utime(os.path.join(top, b"links/00"), ns=(TIMES_NS[0], TIMES_NS[0]), follow_symlinks=False)


class Case(NamedTuple):
    """An archive, and its expected listing."""

    archive: Path
    listing: Listing


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The archive that would be sent after an edit, and the listing of the workspace."""
    folder = tmp_path_factory.mktemp("readers")
    work = folder / "work"
    work.mkdir()
    _make_tree(os.fsencode(work))
    before, after = _two_snapshots(folder, work)
    kept = set(before.pieces) & set(after.pieces)
    assert len(kept) >= 3
    assert len(after.pieces) > len(kept)
    archive = folder / "a.tar.gz"
    with archive.open("wb") as file:
        file.writelines(after.blocks(64 << 10))
    assert archive.stat().st_size == after.size_bytes
    return Case(archive, on_disk(work))


def _two_snapshots(folder: Path, work: Path) -> tuple[Archive, Archive]:
    snapshotter = workspace_in(folder).snapshotter("main")
    archives = []
    for number in range(2):
        _write(os.fsencode(work), b"many/3/edited", b"edit %d" % number)
        _write(os.fsencode(work), b"names/edit-%d" % number, b"new")
        packed = snapshotter.pack(snapshotter.scan(Manifest(), SyncMode.FORCED).manifest)
        assert (snapshotter.warnings, packed.follow_up) == ([], [])
        archives.append(packed.archive)
    return archives[0], archives[1]


def on_disk(top: Path) -> Listing:
    """Return the listing of a directory as its archive must give it: no set-id bits, times rounded down."""
    found = []
    for folder, folders, files in os.walk(os.fsencode(top)):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            kind, what = "d", ""
            if stat.S_ISLNK(status.st_mode):
                kind, what = "l", os.readlink(path).hex()
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    kind, what = "f", hashlib.file_digest(file, "sha256").hexdigest()
            mode, mtime_s = status.st_mode & 0o1777, status.st_mtime_ns // 10**9
            found.append(Line(os.path.relpath(path, os.fsencode(top)), kind, mode, mtime_s, what))
    return sorted(found)


def test_the_tree_is_nasty_enough(case: Case) -> None:
    """The file system kept the properties that readers fail on."""
    assert len(case.listing) > 400
    assert min(line.mtime_s for line in case.listing) == -86_401
    assert max(len(line.path) for line in case.listing) > 1_500
    assert {line.kind for line in case.listing} == {"f", "d", "l"}


@pytest.mark.parametrize(("program", "options"), [("tar", ["-xpzf"]), ("bsdtar", ["-xpf"])])
def test_it_is_extracted(case: Case, tmp_path: Path, program: str, options: list[str]) -> None:
    """The extracted tree has the workspace's listing, with the times of links and directories."""
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    command = [program, *options, str(case.archive), "-C", str(tmp_path), "--no-same-owner"]
    environ = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    assert on_disk(tmp_path) == case.listing


def test_it_is_one_member(case: Case) -> None:
    """The file is one gzip member."""
    packed = case.archive.read_bytes()
    inflate = zlib.decompressobj(31)
    tar = inflate.decompress(packed)
    assert inflate.eof
    assert inflate.unused_data == b""
    assert gzip.decompress(packed) == tar
    assert len(tar) % 10_240 == 0
    assert tar[-1024:] == bytes(1024)
