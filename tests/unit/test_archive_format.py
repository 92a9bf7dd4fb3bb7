"""Headers with values at the limits of their fields, read by Python's tarfile."""

from __future__ import annotations

import io
import tarfile

import pytest

from syncd.archive import archive_format
from syncd.model.entry import Entry, Kind

FILE = Entry(Kind.FILE, 0o640, 1_700_000_000)


def read_back(path: str, size_bytes: int = 0) -> tarfile.TarInfo:
    """The entry that tarfile reads from a file's headers, without content."""
    blocks = archive_format.headers(path, FILE, size_bytes)
    assert len(blocks) % archive_format.BLOCK == 0
    with tarfile.open(fileobj=io.BytesIO(blocks + bytes(1024)), errors="surrogateescape") as tar:
        info = tar.next()
    assert info is not None
    return info


def in_folders(length: int) -> str:
    """A path of this many bytes, in folders of nine letters."""
    whole = "/".join(["folder-xx"] * (length // 10 + 1))[:length]
    return whole[:-1] + "z"


@pytest.mark.parametrize("size_bytes", [0, 1, 511, 512, 8 * 2**30 - 1, 8 * 2**30, 2**40])
def test_sizes_survive(size_bytes: int) -> None:
    """A size of 8 GiB and more does not fit the field and gets a record."""
    assert read_back("big", size_bytes).size == size_bytes


def test_a_short_entry_is_one_block() -> None:
    """An unnecessary extended header would cost a third of the speed."""
    assert len(archive_format.headers(in_folders(200), FILE, 8 * 2**30 - 1)) == archive_format.BLOCK
    assert len(archive_format.headers("n\udcff", FILE, 1)) == archive_format.BLOCK


def test_a_records_length_includes_itself() -> None:
    """At every length, also when the number gets another digit."""
    for length in [*range(101, 1100), 9_970, 9_985, 9_999, 10_001]:
        path = "y" * length
        assert read_back(path).name == path
