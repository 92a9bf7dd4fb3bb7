"""What is lost of the workspace (nearly all files, its directory, a mount) does not count as deleted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from syncd.core.durable_file import StateFile
from syncd.core.errors import NearlyEmpty, TryLater
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.scan import file_reader
from syncd.scan.exclusions import unmounted
from syncd.scan.file_reader import FileIdentity, identity_of, lasting_identity_of, stamp_of
from syncd.scan.guards import LEFT_ONE_IN, SMALL_FILES, LossGuard
from syncd.scan.scanner import Scan
from tests.recorded import full_disk

OURS = FileIdentity(1, 2, 3)
ANOTHER = FileIdentity(1, 2, 4)


def files(prefix: str, count: int) -> Manifest:
    return Manifest({f"{prefix}{number}": Entry(Kind.FILE, 0o644, 1, 5) for number in range(count)})


BEFORE = files("before", 100)


def recorded(folder: Path, identity: FileIdentity = OURS) -> LossGuard:
    guard = LossGuard("/work", str(folder))
    guard.record_workspace(Scan(identity, dict(BEFORE)))
    return guard


AFTER, ONE_FOLDER = files("after", 100), Manifest({"folder": Entry(Kind.DIRECTORY, 0o755, 1)})
FOLDERS = Manifest({f"d{number}": Entry(Kind.DIRECTORY, 0o755, 1) for number in range(100)})
INTENDED = "run `syncd push --force` if this is intended"
REPLACED = (
    "another directory is in the workspace's place, with hardly any of its files, so nothing is synced: "
    f"bring the old one back, or {INTENDED}"
)
LOST = f"the workspace holds 9 files where it held 100, so nothing is synced: bring it back, or {INTENDED}"
# What was there, the directory in its place now, what is there now, and the refusal.
LOSSES: dict[str, tuple[Manifest, FileIdentity, Manifest, str]] = {
    "nothing": (BEFORE, OURS, BEFORE, ""),
    "other files in the same directory": (BEFORE, OURS, AFTER, ""),
    "the same files in another directory": (BEFORE, ANOTHER, BEFORE, ""),
    "other files in another directory": (BEFORE, ANOTHER, AFTER, REPLACED),
    "one in so many is left": (BEFORE, ANOTHER, AFTER | files("before", 100 // LEFT_ONE_IN), ""),
    "one less is left": (BEFORE, ANOTHER, AFTER | files("before", 100 // LEFT_ONE_IN - 1), REPLACED),
    "nearly all files": (BEFORE | FOLDERS, OURS, files("before", 9) | FOLDERS, LOST),
    "not quite so many": (BEFORE, OURS, files("before", 10), ""),
    "one file": (files("before", 1), OURS, Manifest(), ""),
    "a small one": (files("before", SMALL_FILES - 1), OURS, Manifest(), ""),
    "a small one, made again": (files("before", LEFT_ONE_IN), ANOTHER, files("before", 1) | AFTER, ""),
    "a small one, by an empty directory": (files("before", SMALL_FILES - 1), ANOTHER, Manifest(), REPLACED),
    "one file, by a folder": (files("before", 1), ANOTHER, ONE_FOLDER, REPLACED),
    "one file, by others": (files("before", 1), ANOTHER, AFTER, REPLACED),
    "a folder": (ONE_FOLDER, ANOTHER, Manifest(), ""),
}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(("before", "identity", "now", "refusal"), LOSSES.values(), ids=LOSSES)
def test_what_counts_as_lost(
    tmp_path: Path, before: Manifest, identity: FileIdentity, now: Manifest, refusal: str, *, restarted: bool
) -> None:
    """Another directory in its place if its files differ too, and nearly all files; directories do not count."""
    guard = recorded(tmp_path)
    guard = _guard(tmp_path) if restarted else guard
    if not refusal:
        guard.check(before, Scan(identity, now))
        return
    with pytest.raises(NearlyEmpty) as failure:
        guard.check(before, Scan(identity, now))
    assert str(failure.value) == refusal


@pytest.mark.parametrize(("left", "refused"), [(9, True), (10, False)])
def test_a_command_writes_to_another_directory(tmp_path: Path, left: int, *, refused: bool) -> None:
    """It does where a tenth of what was sent is there."""
    workspace = tmp_path / "work"
    workspace.mkdir()
    guard = LossGuard(str(workspace), str(tmp_path))
    guard.record_workspace(Scan(ANOTHER, BEFORE))
    for path in [*BEFORE][:left]:
        (workspace / path).touch()
    if not refused:
        guard.check_place(lambda: BEFORE)
        return
    with pytest.raises(NearlyEmpty) as failure:
        guard.check_place(lambda: BEFORE)
    assert str(failure.value) == REPLACED.replace("synced", "written there")


def test_what_vanishes_while_it_is_packed(tmp_path: Path) -> None:
    """A snapshot of hardly any of the files that were scanned would make the others look deleted."""
    guard = recorded(tmp_path)
    guard.check_vanished(BEFORE, 90)
    with pytest.raises(TryLater) as failure:
        guard.check_vanished(BEFORE, 91)
    what = "91 of the workspace's 100 files vanished while they were packed"
    assert str(failure.value) == f"{what}: they are looked for again"


def test_another_directory_is_the_workspace_once_no_sandbox_refuses_it(tmp_path: Path) -> None:
    """One that has hardly anything of what another sandbox holds is refused for that one still."""
    guard, there = recorded(tmp_path), Scan(ANOTHER, AFTER)
    guard.record_workspace(there, [AFTER, BEFORE])
    with pytest.raises(NearlyEmpty):
        guard.check(BEFORE, there)
    guard.record_workspace(there, [AFTER])
    guard.check(BEFORE, there)


def test_nothing_is_known_yet(tmp_path: Path) -> None:
    """Of the first directory nothing is refused, nor of mounts."""
    guard = LossGuard("/work", str(tmp_path))
    guard.check(BEFORE, Scan(OURS, files("after", 100)))
    assert guard.missing_mounts() == frozenset()
    guard.begin()
    guard.check_mounts(Scan(OURS, Manifest()))


@pytest.mark.parametrize(
    ("excluded", "left", "refused"),
    [(80, 2, False), (80, 1, True), (81, 0, False), (100, 0, False), (79, 3, False), (79, 2, True), (0, 10, False)],
)
@pytest.mark.parametrize("identity", [OURS, ANOTHER])
def test_what_a_new_rule_excludes(
    tmp_path: Path, identity: FileIdentity, excluded: int, left: int, *, refused: bool
) -> None:
    """It does not count: of all other files a tenth must be left, or of fewer than twenty in another directory one."""
    guard, now = recorded(tmp_path), Scan(identity, files("before", left))
    refused = refused or (identity is ANOTHER and not left and excluded < len(BEFORE))
    try:
        guard.check(BEFORE, now, lambda paths: list(paths)[:excluded])
    except NearlyEmpty:
        assert refused
    else:
        assert not refused


# -- what was mounted there

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
        scan = _checked(guard, "data", ODD, unread=("private",))
        assert scan.unread == {"data", "private"}
        assert scan.warnings == [unmounted("data")]
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
    """What cannot be recorded, of the directory and of mounts, is known to this process alone."""
    monkeypatch.setattr(StateFile, "save", full_disk)
    guard = recorded(tmp_path)
    with pytest.raises(NearlyEmpty):
        guard.check(BEFORE, Scan(ANOTHER, files("after", 100)))
    mount("data")
    _checked(guard, "data")
    mount()
    assert _checked(guard, "data").unread == {"data"}
    assert not _checked(_guard(tmp_path), "data").unread


def test_damaged_records(tmp_path: Path, mount: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    """The log says what the loss of each costs; what is found next is recorded anew."""
    guard = recorded(tmp_path)
    mount("data")
    _checked(guard, "data")
    for name in ("workspace", "mounts"):
        (tmp_path / name).write_bytes(b"damaged")
    guard = _guard(tmp_path)
    costs = [message.rpartition(", and ")[2] for message in caplog.messages]
    assert costs == [
        "another directory put in the workspace's place goes unnoticed once",
        "what was unmounted in the workspace while no syncd ran counts as deleted",
    ]
    mount()
    guard.check(BEFORE, Scan(ANOTHER, AFTER))
    assert not _checked(guard, "data").unread


# -- what makes a directory the same one


def test_the_birth_time_distinguishes_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is known of both; else device and inode do."""
    descriptor = os.open(tmp_path, os.O_PATH)
    try:
        lasting, brief = lasting_identity_of(descriptor), identity_of(os.fstat(descriptor))
        monkeypatch.setattr(file_reader, "_statx", None)
        assert lasting_identity_of(descriptor) == brief
    finally:
        os.close(descriptor)
    assert lasting.birth_ns
    assert lasting.matches(brief)
    assert brief.matches(lasting)
    later = FileIdentity(lasting.device, lasting.inode, lasting.birth_ns + 1)
    assert not lasting.matches(later)
    assert not brief.matches(FileIdentity(brief.device, brief.inode + 1))


@pytest.mark.parametrize("mtime_s", [-(1 << 40), -1, 0, 1 << 40])
def test_any_time_of_a_file_can_be_recorded(mtime_s: int) -> None:
    """Some file systems, as tmpfs, have times for which nanoseconds need more than 64 bits."""
    status = os.stat_result((0o100644, 1, 1, 1, 0, 0, 0, 0, mtime_s, 0), {"st_mtime_ns": mtime_s * 10**9})
    stamp = stamp_of(status)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(stamp.mtime_ns)) == stamp.mtime_ns
