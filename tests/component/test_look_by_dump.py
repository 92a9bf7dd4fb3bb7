"""Looks by an archive of the sandbox's workspace."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from syncd.archive.extraction import BadArchive
from syncd.model.entry import Kind
from syncd.sandbox import look_by_dump
from syncd.sandbox.look_by_dump import look_in_archive
from syncd.sandbox.look_request import LookItem, LookRequest, LookResult
from tests import archives
from tests.looks import COMMITS, FETCH, FOLDER, PLACE, a_file, item


class Archive:
    """An archive of a workspace in the making, in the form of the API's: `./` before names, and an entry for `.`."""

    def __init__(self) -> None:
        self._members: list[archives.Member] = []
        self.add(".", kind=tarfile.DIRTYPE)

    def add(
        self, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, mode: int = 0o644, to: str = ""
    ) -> None:
        path = name if name == "." else f"./{name}"
        self._members.append(archives.member(path, content, type=kind, mode=mode, linkname=to, mtime=7))

    def packed(self) -> bytes:
        return archives.archive(*self._members)


@pytest.fixture
def archive() -> Archive:
    return Archive()


def look(archive: Archive, folder: Path, items: Mapping[str, LookItem], **more: object) -> LookResult:
    request = LookRequest(items, **more)  # type: ignore[arg-type]
    return look_in([archive.packed()], request, folder)


def look_in(packed: list[bytes], request: LookRequest, folder: Path) -> LookResult:
    """Look at an archive that a sandbox answers with."""
    return look_in_archive(packed, request, str(folder), lambda: None)


def copies(result: LookResult, folder: Path) -> dict[str, bytes]:
    """Return the content of each copy in the folder."""
    found = {path: entry.copy for path, entry in {**result.differing, **result.new}.items() if entry.copy}
    assert set(found.values()) <= {str(path) for path in folder.iterdir()}
    return {path: Path(copy).read_bytes() for path, copy in found.items()}


def test_places(archive: Archive, tmp_path: Path) -> None:
    """A directory blocks all else, and all else a directory; a repository's commits are not known."""
    archive.add("d", kind=tarfile.DIRTYPE)
    archive.add("f", b"theirs")
    archive.add("ln", kind=tarfile.SYMTYPE, to="d")
    archive.add("fifo", kind=tarfile.FIFOTYPE)
    free = {"d": FOLDER, "f": a_file(), "ln": a_file(), "fifo": a_file(), "new": FOLDER, "new/a": a_file()}
    taken = {"d": a_file(), "f": FOLDER, "f/a": a_file(), "ln": FOLDER, "fifo": FOLDER}
    result = look(archive, tmp_path, {path: item(PLACE, entry) for path, entry in free.items()})
    assert result == LookResult(kinds_only=True)
    asked = {path: item(PLACE, entry) for path, entry in taken.items()} | {".git": item(COMMITS)}
    found = look(archive, tmp_path, asked).blocked
    assert {path: obstacle.value for path, obstacle in found.items()} == {
        "d": "d",
        "f": "f",
        "ln": "l",
        "fifo": "o",
        ".git": "?",
    }


def test_what_has_room_is_copied(archive: Archive, tmp_path: Path) -> None:
    """What is beyond the limit is reported without a copy."""
    for name, size in (("big", 500), ("mid", 40), ("large", 61), ("small", 30), ("least", 30)):
        archive.add(name, b"x" * size)
    result = look(archive, tmp_path, {"mid": item(FETCH, a_file())}, find_new=True, most_copied_bytes=100)
    assert set(copies(result, tmp_path)) == {"mid", "small", "least"}
    assert len(list(tmp_path.iterdir())) == 3
    assert set(result.new) == {"big", "large", "small", "least"}


def test_the_later_one_of_two_members_counts(archive: Archive, tmp_path: Path) -> None:
    """As it does when they are extracted."""
    for content in (b"OURS", b"ours", b"THEIRS"):
        archive.add("a", content)
        archive.add("new", content)
    archive.add("back", b"OURS")
    archive.add("back", b"ours")
    asked = {"a": item(FETCH, a_file()), "back": item(FETCH, a_file())}
    result = look(archive, tmp_path, asked, find_new=True)
    assert copies(result, tmp_path) == {"a": b"THEIRS", "new": b"THEIRS"}


def test_names_without_end_hide_nothing_beside_them(archive: Archive, tmp_path: Path) -> None:
    """100,000 folders in each other, a name of megabytes, and many deep ones cost their bytes, and are counted."""
    archive.add("a", b"theirs")
    archive.add("d/" * 100_000 + "f", b"deep")
    archive.add("m" * 3_000_000, b"long")
    for number in range(40):
        archive.add(f"{number}/" + "d/" * 2_000 + "f", b"deep")
    archive.add("z", b"theirs")
    result = look(archive, tmp_path, {"a": item(FETCH, a_file())})
    assert {path: entry.digest for path, entry in result.differing.items()} == {"a": hashlib.sha256(b"theirs").digest()}
    new = look(archive, tmp_path, {}, find_new=True)
    assert new.unlisted == 2
    assert sum(map(len, new.new)) <= look_by_dump.MOST_PATH_BYTES


@pytest.mark.parametrize("length", [0, 1, 100, -9, -1])
def test_a_truncated_archive_is_not_the_truth(archive: Archive, tmp_path: Path, length: int) -> None:
    """It raises, and no copy stays."""
    archive.add("a", os.urandom(3000))
    with pytest.raises(BadArchive):
        look_in([archive.packed()[:length]], LookRequest({}, find_new=True), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_disk_without_room(archive: Archive, tmp_path: Path) -> None:
    """All is found, without the copies that cannot be kept here."""
    archive.add("a", b"theirs")
    archive.add("large", b"theirs" * 500_000)
    found = look(archive, tmp_path / "missing", {}, find_new=True)
    assert [(path, entry.copy, bool(entry.digest)) for path, entry in found.new.items()] == [
        ("a", "", True),
        ("large", "", True),
    ]
    assert "cannot be kept on this machine (No such file" in found.not_kept


def test_hard_links(archive: Archive, tmp_path: Path) -> None:
    """Their content is that of the file that they name, if that came before."""
    archive.add("a", b"ours")
    archive.add("new", b"new")
    archive.add("linked", kind=tarfile.LNKTYPE, to="./new")
    archive.add("known", kind=tarfile.LNKTYPE, to="./a")
    archive.add("without content", kind=tarfile.LNKTYPE, to="./a")
    archive.add("outside", kind=tarfile.LNKTYPE, to="../outside")
    asked = {name: item(FETCH, a_file()) for name in ("a", "known", "outside")}
    result = look(archive, tmp_path, asked, find_new=True)
    assert copies(result, tmp_path) == {"linked": b"new", "new": b"new"}
    assert result.new["without content"].digest == a_file().digest
    assert {path: entry.kind for path, entry in result.differing.items()} == {"outside": Kind.UNREAD}
