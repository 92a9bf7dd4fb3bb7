"""Headers with values at the limits of their fields, read by Python's tarfile."""

from __future__ import annotations

import io
import os
import tarfile
import zlib

import pytest

from syncd.archive import archive_format
from syncd.model.entry import Entry, Kind


def read_back(path: str, entry: Entry, size_bytes: int = 0) -> tarfile.TarInfo:
    """The entry that tarfile reads from these headers, without content."""
    blocks = archive_format.headers(path, entry, size_bytes)
    assert len(blocks) % archive_format.BLOCK == 0
    with tarfile.open(fileobj=io.BytesIO(blocks + bytes(1024)), errors="surrogateescape") as tar:
        info = tar.next()
    assert info is not None
    return info


def entry_of(kind: Kind, **fields: object) -> Entry:
    return Entry(**{"kind": kind, "mode": 0o640, "mtime_s": 1_700_000_000, **fields})  # type: ignore[arg-type]


def in_folders(length: int) -> str:
    """A path of this many bytes, in folders of nine letters."""
    whole = "/".join(["folder-xx"] * (length // 10 + 1))[:length]
    return whole[:-1] + "z"


NAMES = [
    "a",
    "ü" * 50,
    "x" * 99,
    "x" * 100,
    "x" * 101,
    "x" * 255,
    *(in_folders(length) for length in (99, 100, 101, 155, 156, 157, 254, 255, 256, 257, 4000)),
    "d" * 155 + "/" + "x" * 100,
    "d" * 155 + "/" + "x" * 99,
    "d" * 156 + "/" + "x" * 99,
    "d" * 155 + "/" + "x" * 101,
    "d" * 99 + "/" + "x" * 100,
    "d" * 99 + "/x" + "/y" * 200,
    "n\udcff\udcfe",
    "n\udcff" + "x" * 150,
    "d\udcff/" + "x" * 150,
    "a\nb\tc",
    " ",
    "a=b\n15 path=evil",
    "x" * 120 + "\n15 path=evil\n",
    "new\nline" * 20,
    "\u202e" * 60,
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: f"{len(os.fsencode(name))}-{zlib.crc32(os.fsencode(name)):x}")
@pytest.mark.parametrize("kind", [Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK])
def test_names_survive(name: str, kind: Kind) -> None:
    """Any name is read byte for byte, with its kind, also if it does not fit the header."""
    info = read_back(name, entry_of(kind, target="t" if kind is Kind.SYMLINK else ""))
    assert os.fsencode(info.name) == os.fsencode(name)
    assert (info.isreg(), info.isdir(), info.issym()) == (
        kind is Kind.FILE,
        kind is Kind.DIRECTORY,
        kind is Kind.SYMLINK,
    )


@pytest.mark.parametrize("size_bytes", [0, 1, 511, 512, 8 * 2**30 - 1, 8 * 2**30, 2**40])
def test_sizes_survive(size_bytes: int) -> None:
    """A size of 8 GiB and more does not fit the field and gets a record."""
    assert read_back("big", entry_of(Kind.FILE), size_bytes).size == size_bytes


@pytest.mark.parametrize("mtime_s", [0, 1, 8 * 2**30 - 1, 8 * 2**30, -1, -(2**35), 253_402_300_799])
def test_times_survive(mtime_s: int) -> None:
    """A time before 1970 or after 2242 gets a record, in whole seconds too."""
    assert read_back("old", entry_of(Kind.FILE, mtime_s=mtime_s)).mtime == mtime_s


def test_a_short_entry_is_one_block() -> None:
    """An unnecessary extended header would cost a third of the speed."""
    assert len(archive_format.headers(in_folders(200), entry_of(Kind.FILE), 8 * 2**30 - 1)) == archive_format.BLOCK
    assert len(archive_format.headers("n\udcff", entry_of(Kind.FILE), 1)) == archive_format.BLOCK


def test_a_records_length_includes_itself() -> None:
    """At every length, also when the number gets another digit."""
    for length in [*range(101, 1100), 9_970, 9_985, 9_999, 10_001]:
        path = "y" * length
        assert read_back(path, entry_of(Kind.FILE)).name == path
