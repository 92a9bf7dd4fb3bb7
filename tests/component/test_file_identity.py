"""A directory is distinguished from a later one with its inode number, by what the file system offers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from syncd.scan import file_reader
from syncd.scan.file_reader import FileIdentity, identity_at, identity_of, persistent_identity_of, stamp_of
from tests.inodes import inode_reusing_folder, recreate


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with inode_reusing_folder(tmp_path) as place:
        (place / "d").mkdir()
        yield place


@pytest.fixture(params=["handle", "birth"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run with handles, and without: then the birth time is used."""
    if request.param == "birth":
        monkeypatch.setattr(file_reader, "_name_to_handle_at", None)
    return str(request.param)


def identity(path: Path) -> FileIdentity:
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


def wait_for_tick(folder: Path) -> None:
    """Wait until the file system's clock, which is as coarse as the kernel's tick, has advanced."""
    (folder / "tick").touch()
    birth_ns = (folder / "tick").stat().st_ctime_ns
    while (folder / "tick").stat().st_ctime_ns == birth_ns:
        (folder / "tick").touch()


def test_a_later_directory_with_the_same_inode_number(folder: Path, means: str) -> None:
    """The inode number is the same, the handle's generation or the birth time is not."""
    before = identity(folder / "d")
    if not (before.handle if means == "handle" else before.birth_ns):
        pytest.skip("this file system has neither")

    def prepare() -> None:
        nonlocal before
        before = identity(folder / "d")
        assert before == identity(folder / "d")
        wait_for_tick(folder)

    recreate(folder / "d", prepare)
    after = identity(folder / "d")
    assert (after.device, after.inode) == (before.device, before.inode)
    assert after != before
    assert not after.matches(before)


def test_without_handle_and_birth_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without handle and birth time, only device and inode are compared."""
    monkeypatch.setattr(file_reader, "_name_to_handle_at", None)
    monkeypatch.setattr(file_reader, "_statx", None)
    status = (folder / "d").stat()
    assert identity(folder / "d") == FileIdentity(status.st_dev, status.st_ino)


def test_a_link_is_not_followed(folder: Path) -> None:
    """A link in a directory's place is not the directory."""
    (folder / "link").symlink_to("d")
    parent = os.open(folder, os.O_RDONLY)
    try:
        assert identity_at("link", parent) != identity_at("d", parent)
        with pytest.raises(FileNotFoundError):
            identity_at("gone", parent)
    finally:
        os.close(parent)


def test_persistent_identities_have_the_birth_time(folder: Path) -> None:
    """The record has the birth time beside the handle: top directories of two disks share number and generation."""
    descriptor = os.open(folder / "d", os.O_PATH)
    try:
        lasting, brief = persistent_identity_of(descriptor), identity_of(descriptor)
    finally:
        os.close(descriptor)
    assert lasting.handle == brief.handle
    assert lasting.birth_ns
    assert lasting.matches(brief)


@pytest.mark.parametrize("mtime_s", [-(1 << 40), -1, 0, 1 << 40])
def test_any_time_of_a_file_can_be_recorded(mtime_s: int) -> None:
    """Some file systems, as tmpfs, have times for which nanoseconds need more than 64 bits."""
    status = os.stat_result((0o100644, 1, 1, 1, 0, 0, 0, 0, mtime_s, 0), {"st_mtime_ns": mtime_s * 10**9})
    stamp = stamp_of(status)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(stamp.mtime_ns)) == stamp.mtime_ns
