"""Headers with values at the limits of their fields, read by Python's tarfile."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping

import pytest
from msgspec.structs import replace

from syncd.archive import archive_format
from syncd.archive.chunk_store import LARGEST_CHUNK_BYTES, TARGET_BYTES, key_of, split
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


# -- chunks


def a_file(size_bytes: int, digest: bytes = b"d" * 32) -> Entry:
    return Entry(Kind.FILE, 0o644, 1_700_000_000, size_bytes, digest=digest)


def a_tree(paths: Iterable[str]) -> dict[str, Entry]:
    return {path: a_file(9_000) for path in sorted(paths)}


def chunks(tree: Mapping[str, Entry]) -> list[list[str]]:
    return [list(chunk) for chunk in split(tree.items())]


NAMES = [f"src/module{n:05}.py" for n in range(5_000)]


def test_chunks_have_the_target_size() -> None:
    """On average; none is larger than the limit, except a single large file."""
    runs = list(chunks(a_tree(NAMES)))
    sizes = [sum(512 + 9_000 for _ in run) for run in runs]
    assert max(sizes) <= LARGEST_CHUNK_BYTES
    assert TARGET_BYTES / 2 < sum(sizes) / len(sizes) < TARGET_BYTES * 2


def test_one_more_file_moves_few_boundaries() -> None:
    """Almost all chunks stay the same when one file is added or removed."""
    before = {tuple(run) for run in chunks(a_tree(NAMES))}
    for names in ([*NAMES, "src/module02500x.py"], NAMES[:2500] + NAMES[2501:]):
        after = {tuple(run) for run in chunks(a_tree(names))}
        assert len(before - after) <= 3


def test_a_key_depends_on_all_that_is_in_the_archive() -> None:
    """Each field of an entry that is packed changes the key; a stamp does not."""
    entry = a_file(5)
    link = Entry(Kind.SYMLINK, 0o777, 5, target="x")
    key = key_of({"a": entry})
    others = [
        key_of({"b": entry}),
        key_of({"a": replace(entry, mode=0o600)}),
        key_of({"a": replace(entry, mtime_s=1)}),
        key_of({"a": replace(entry, size_bytes=6)}),
        key_of({"a": replace(entry, digest=b"e" * 32)}),
        key_of({"a": link}),
        key_of({"a": replace(link, target="y")}),
        key_of({"a": entry, "b": entry}),
    ]
    assert key is not None
    assert len({key, *others}) == len(others) + 1
    assert key_of({"a": replace(entry, stamp=None)}) == key
