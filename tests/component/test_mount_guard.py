"""What was mounted in the workspace and is missing does not count as deleted, also in the next process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.core.durable_file import StateFile
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.scan.guards import LossGuard
from syncd.scan.scanner import Scan
from tests.recorded import full_disk

FOLDER = Entry(Kind.DIRECTORY, 0o755, 1)
ODD = "odd\udcff"


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the kernel's list hold mounts at these paths of the workspace."""
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr("syncd.watch.mounts._LIST", str(mounts))

    def listed(*paths: str) -> None:
        lines = [f"{at} 22 0:{at} / /work/{path} rw - tmpfs none rw\n" for at, path in enumerate(paths, 90)]
        text = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + "".join(lines)
        mounts.write_bytes(text.encode("utf-8", "surrogateescape"))

    listed()
    return listed


def _checked(guard: LossGuard, *paths: str, unread: tuple[str, ...] = ()) -> Scan:
    scan = Scan(manifest=Manifest(dict.fromkeys(paths, FOLDER)), unread=set(unread))
    guard.begin()
    guard.check_mounts(scan)
    return scan


def _guard(folder: Path) -> LossGuard:
    guard = LossGuard("/work", str(folder))
    guard.load()
    return guard


def test_without_a_list_of_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without /proc has no such list: nothing counts as mounted."""
    monkeypatch.setattr("syncd.watch.mounts._LIST", str(tmp_path / "nothing"))
    scan = _checked(_guard(tmp_path), "data")
    assert (scan.unread, scan.warnings) == (set(), [])


@pytest.mark.parametrize("restarted", [False, True])
def test_a_missing_mount(tmp_path: Path, mount: Callable[..., None], *, restarted: bool) -> None:
    """Its place counts as unread, with a warning, until it is mounted again or the place is removed."""
    guard = _guard(tmp_path)
    mount("data", ODD)
    assert not _checked(guard, "data", ODD).unread
    mount(ODD)
    guard = _guard(tmp_path) if restarted else guard
    for _ in range(2):
        scan = _checked(guard, "data", ODD)
        assert scan.unread == {"data"}
        assert [warning.key for warning in scan.warnings] == ["unmounted:data"]
    mount("data", ODD)
    scan = _checked(guard, "data", ODD)
    assert (scan.unread, scan.warnings) == (set(), [])
    mount(ODD)
    assert not _checked(guard, ODD).unread
    assert not _checked(guard, "data", ODD).unread


def test_a_dead_mount(tmp_path: Path, mount: Callable[..., None]) -> None:
    """One that cannot be read is remembered until it is unmounted, also below a directory that cannot be read."""
    guard = _guard(tmp_path)
    mount("data", "a/b")
    _checked(guard, "data", "a", "a/b")
    _checked(guard, unread=("data", "a"))
    mount()
    assert _checked(guard, "data", "a", "a/b").unread == {"data", "a/b"}


def test_a_person_confirms(tmp_path: Path, mount: Callable[..., None]) -> None:
    """After `push --force` the files of the missing mount are deleted ones, once for each sandbox."""
    guard, file = _guard(tmp_path), Entry(Kind.FILE, 0o644)
    blue = Manifest({"data": FOLDER, "data/deep/file": file, "more": FOLDER})
    mount("data", "more")
    _checked(guard, "data", "more")
    mount("more")
    for other_bases, still in (([blue], {"data"}), ([Manifest({"data": FOLDER})], set())):
        guard.begin()
        assert guard.missing_mounts() == {"data"}
        scan = Scan(manifest=Manifest(dict.fromkeys(("data", "more"), FOLDER)))
        guard.check_mounts(scan, guard.missing_mounts(), other_bases)
        assert (scan.unread, scan.warnings) == (set(), [])
        assert _checked(_guard(tmp_path), "data", "more").unread == still
    mount()
    assert _checked(_guard(tmp_path), "data", "more").unread == {"more"}


def test_a_mount_that_comes_or_goes_during_the_scan(tmp_path: Path, mount: Callable[..., None]) -> None:
    """Its place may have been seen empty, so that nothing is known of it."""
    guard = _guard(tmp_path)
    mount("data")
    _checked(guard, "data")
    for before, after in ((("data",), ()), ((), ("data",))):
        scan = Scan(manifest=Manifest({"data": FOLDER}))
        mount(*before)
        guard.begin()
        mount(*after)
        guard.check_mounts(scan)
        assert scan.unread == {"data"}


def test_a_full_disk(tmp_path: Path, mount: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be recorded is known to this process alone."""
    monkeypatch.setattr(StateFile, "save", full_disk)
    guard = _guard(tmp_path)
    mount("data")
    _checked(guard, "data")
    mount()
    assert _checked(guard, "data").unread == {"data"}
    assert not _checked(_guard(tmp_path), "data").unread
