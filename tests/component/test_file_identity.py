"""A directory is distinguished from a later one with the same inode number."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.core import file_identity
from syncd.core.file_identity import FileIdentity, identity_at, identity_of, lasting_identity_of
from tests.inodes import make_anew, reusing

KNOWN = FileIdentity(1, 2, b"handle", 3)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with reusing(tmp_path) as place:
        (place / "d").mkdir()
        yield place


@pytest.fixture(params=["handle", "birth"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run without file handles, so that the birth time is used, and with them."""
    if request.param == "birth":
        monkeypatch.setattr(file_identity, "_name_to_handle_at", None)
    return str(request.param)


def seen(path: Path) -> FileIdentity:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        identity = identity_of(descriptor)
    finally:
        os.close(descriptor)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert identity_at(path.name, parent) == identity
    finally:
        os.close(parent)
    return identity


def tick_over(folder: Path) -> None:
    """Wait for the next tick of the file system's clock."""
    (folder / "tick").touch()
    born_ns = (folder / "tick").stat().st_ctime_ns
    while (folder / "tick").stat().st_ctime_ns == born_ns:
        (folder / "tick").touch()


def test_the_next_directory_with_its_number_is_another(folder: Path, means: str) -> None:
    """The inode number is the same; the handle's generation or the birth time is not."""
    before = seen(folder / "d")
    if not (before.handle if means == "handle" else before.born_ns):
        pytest.skip("this file system tells no such thing")

    def prepare() -> None:
        nonlocal before
        before = seen(folder / "d")
        assert before == seen(folder / "d")
        tick_over(folder)

    make_anew(folder / "d", prepare)
    after = seen(folder / "d")
    assert (after.device, after.inode) == (before.device, before.inode)
    assert after != before
    assert not after.same(before)


def test_without_either_only_the_number_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of the same number counts as the same."""
    monkeypatch.setattr(file_identity, "_name_to_handle_at", None)
    monkeypatch.setattr(file_identity, "_statx", None)
    status = (folder / "d").stat()
    assert seen(folder / "d") == FileIdentity(status.st_dev, status.st_ino)


def test_a_link_is_not_followed(folder: Path) -> None:
    """A link in a directory's place is no directory."""
    (folder / "link").symlink_to("d")
    parent = os.open(folder, os.O_RDONLY)
    try:
        assert identity_at("link", parent) != identity_at("d", parent)
        with pytest.raises(FileNotFoundError):
            identity_at("gone", parent)
    finally:
        os.close(parent)


def test_the_identity_holds_handle_and_birth(folder: Path) -> None:
    """The top directories of two disks have the same number and generation."""
    descriptor = os.open(folder / "d", os.O_PATH)
    try:
        lasting, brief = lasting_identity_of(descriptor), identity_of(descriptor)
    finally:
        os.close(descriptor)
    assert lasting.handle == brief.handle
    assert lasting.born_ns
    assert lasting.same(brief)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (KNOWN, True),
        (FileIdentity(1, 2, b"handle"), True),
        (FileIdentity(1, 2, b"", 3), True),
        (FileIdentity(1, 2), True),
        (FileIdentity(9, 2, b"handle", 3), False),
        (FileIdentity(1, 9, b"handle", 3), False),
        (FileIdentity(1, 2, b"another", 3), False),
        (FileIdentity(1, 2, b"handle", 9), False),
        (FileIdentity(1, 2, b"another"), False),
        (FileIdentity(1, 2, b"", 9), False),
    ],
)
def test_only_what_both_have_is_compared(other: FileIdentity, *, same: bool) -> None:
    """An old record, or another kernel, may have less, which alone makes no difference."""
    assert KNOWN.same(other) is same
    assert other.same(KNOWN) is same
