"""Looks by an archive of the sandbox's workspace."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from syncd.archive.extraction import BadArchive
from syncd.model.entry import Kind
from syncd.sandbox import look_by_dump
from syncd.sandbox.look_by_dump import look_in_archive
from syncd.sandbox.look_request import LookItem, LookRequest, LookResult
from tests import archives
from tests.looks import COMMITS, FETCH, FOLDER, PLACE, a_file, item


def there(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, mode: int = 0o644, to: str = ""
) -> archives.Member:
    """Return an entry in the form of the API's, with `./` before its name."""
    return archives.member(f"./{name}", content, type=kind, mode=mode, linkname=to, mtime=7)


def look(members: Iterable[archives.Member], folder: Path, items: Mapping[str, LookItem], **more: object) -> LookResult:
    """Look at an archive of a workspace, in which an entry for `.` comes first."""
    packed = archives.archive(archives.member(".", type=tarfile.DIRTYPE), *members)
    return look_in_archive([packed], LookRequest(items, **more), str(folder), lambda: None)  # type: ignore[arg-type]


def copies(result: LookResult, folder: Path) -> dict[str, bytes]:
    """Return the content of each copy in the folder."""
    found = {path: entry.copy for path, entry in {**result.differing, **result.new}.items() if entry.copy}
    assert set(found.values()) <= {str(path) for path in folder.iterdir()}
    return {path: Path(copy).read_bytes() for path, copy in found.items()}


def test_places(tmp_path: Path) -> None:
    """A directory blocks all else, and all else a directory; a repository's commits are not known."""
    members = [there("d", kind=tarfile.DIRTYPE), there("f", b"theirs")]
    members += [there("ln", kind=tarfile.SYMTYPE, to="d"), there("fifo", kind=tarfile.FIFOTYPE)]
    free = {"d": FOLDER, "f": a_file(), "ln": a_file(), "fifo": a_file(), "new": FOLDER, "new/a": a_file()}
    taken = {"d": a_file(), "f": FOLDER, "f/a": a_file(), "ln": FOLDER, "fifo": FOLDER}
    result = look(members, tmp_path, {path: item(PLACE, entry) for path, entry in free.items()})
    assert result == LookResult(kinds_only=True)
    asked = {path: item(PLACE, entry) for path, entry in taken.items()} | {".git": item(COMMITS)}
    found = look(members, tmp_path, asked).blocked
    assert {path: obstacle.value for path, obstacle in found.items()} == {
        "d": "d",
        "f": "f",
        "ln": "l",
        "fifo": "o",
        ".git": "?",
    }


def test_what_has_room_is_copied(tmp_path: Path) -> None:
    """What is beyond the limit is reported without a copy."""
    sizes = {"big": 500, "mid": 40, "large": 61, "small": 30, "least": 30}
    members = [there(name, b"x" * size) for name, size in sizes.items()]
    result = look(members, tmp_path, {"mid": item(FETCH, a_file())}, find_new=True, most_copied_bytes=100)
    assert set(copies(result, tmp_path)) == {"mid", "small", "least"}
    assert len(list(tmp_path.iterdir())) == 3
    assert set(result.new) == {"big", "large", "small", "least"}


def test_the_later_one_of_two_members_counts(tmp_path: Path) -> None:
    """As it does when they are extracted."""
    members = [there(name, content) for content in (b"OURS", b"ours", b"THEIRS") for name in ("a", "new")]
    members += [there("back", b"OURS"), there("back", b"ours")]
    asked = {"a": item(FETCH, a_file()), "back": item(FETCH, a_file())}
    result = look(members, tmp_path, asked, find_new=True)
    assert copies(result, tmp_path) == {"a": b"THEIRS", "new": b"THEIRS"}


def test_names_without_end_hide_nothing_beside_them(tmp_path: Path) -> None:
    """100,000 folders in each other, a name of megabytes, and many deep ones cost their bytes, and are counted."""
    members = [there("a", b"theirs"), there("d/" * 100_000 + "f", b"deep"), there("m" * 3_000_000, b"long")]
    members += [there(f"{number}/" + "d/" * 2_000 + "f", b"deep") for number in range(40)]
    members += [there("z", b"theirs")]
    result = look(members, tmp_path, {"a": item(FETCH, a_file())})
    assert {path: entry.digest for path, entry in result.differing.items()} == {"a": hashlib.sha256(b"theirs").digest()}
    new = look(members, tmp_path, {}, find_new=True)
    assert new.unlisted == 2
    assert sum(map(len, new.new)) <= look_by_dump.MOST_PATH_BYTES


@pytest.mark.parametrize("length", [0, 1, 100, -9, -1])
def test_a_truncated_archive_is_not_the_truth(tmp_path: Path, length: int) -> None:
    """It raises, and no copy stays."""
    packed = archives.archive(there("a", os.urandom(3000)))[:length]
    with pytest.raises(BadArchive):
        look_in_archive([packed], LookRequest({}, find_new=True), str(tmp_path), lambda: None)
    assert os.listdir(tmp_path) == []


def test_a_disk_without_room(tmp_path: Path) -> None:
    """All is found, without the copies that cannot be kept here."""
    members = [there("a", b"theirs"), there("large", b"theirs" * 500_000)]
    found = look(members, tmp_path / "missing", {}, find_new=True)
    assert [(path, entry.copy, bool(entry.digest)) for path, entry in found.new.items()] == [
        ("a", "", True),
        ("large", "", True),
    ]
    assert "cannot be kept on this machine (No such file" in found.not_kept


def test_hard_links(tmp_path: Path) -> None:
    """Their content is that of the file that they name, if that came before."""
    links = {"linked": "./new", "known": "./a", "without content": "./a", "outside": "../outside"}
    members = [there("a", b"ours"), there("new", b"new")]
    members += [there(name, kind=tarfile.LNKTYPE, to=target) for name, target in links.items()]
    asked = {name: item(FETCH, a_file()) for name in ("a", "known", "outside")}
    result = look(members, tmp_path, asked, find_new=True)
    assert copies(result, tmp_path) == {"linked": b"new", "new": b"new"}
    assert result.new["without content"].digest == a_file().digest
    assert {path: entry.kind for path, entry in result.differing.items()} == {"outside": Kind.UNREAD}
