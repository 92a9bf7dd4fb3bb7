"""Another directory in the workspace's place is detected, also by the next process; a restart alone is not an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.core.durable_file import StateFile
from syncd.core.errors import NearlyEmpty, TryLater
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.scan.file_reader import FileIdentity
from syncd.scan.guards import LEFT_ONE_IN, SMALL_FILES, LossGuard, is_replaced
from syncd.scan.scanner import Scan
from tests.recorded import full_disk

OURS = FileIdentity(1, 2, 3)
ANOTHER = FileIdentity(1, 2, 4)


def files(prefix: str, count: int) -> Manifest:
    return Manifest({f"{prefix}{number}": Entry(Kind.FILE, 0o644, 1, 5) for number in range(count)})


BEFORE = files("before", 100)


def recorded(folder: Path, identity: FileIdentity = OURS) -> LossGuard:
    """Return a guard that has recorded the workspace."""
    guard = LossGuard("/work", str(folder))
    guard.record_workspace(Scan(identity, dict(BEFORE)))
    return guard


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("identity", "now", "refused"),
    [
        (OURS, BEFORE, False),
        (OURS, files("after", 100), False),
        (ANOTHER, BEFORE, False),
        (ANOTHER, files("after", 100), True),
        (ANOTHER, files("after", 100) | files("before", 100 // LEFT_ONE_IN), False),
        (ANOTHER, files("after", 100) | files("before", 100 // LEFT_ONE_IN - 1), True),
    ],
)
def test_another_directory(
    tmp_path: Path, identity: FileIdentity, now: Manifest, *, refused: bool, restarted: bool
) -> None:
    """It is refused if its files differ too."""
    guard = recorded(tmp_path)
    if restarted:
        guard = LossGuard("/work", str(tmp_path))
        guard.load()
    if not refused:
        guard.check(BEFORE, Scan(identity, now))
        return
    with pytest.raises(NearlyEmpty) as failure:
        guard.check(BEFORE, Scan(identity, now))
    assert str(failure.value) == (
        "another directory is in the workspace's place, with hardly any of its files, so nothing is synced: "
        "bring the old one back, or run `syncd push --force` if this is intended"
    )


def test_nothing_is_known_yet(tmp_path: Path) -> None:
    """Of the first directory nothing is refused, nor of mounts."""
    guard = LossGuard("/work", str(tmp_path))
    guard.check(BEFORE, Scan(OURS, files("after", 100)))
    assert guard.missing_mounts() == frozenset()
    guard.begin()
    guard.check_mounts(Scan(OURS, Manifest()))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be recorded is known to this process alone."""
    monkeypatch.setattr(StateFile, "save", full_disk)
    with pytest.raises(NearlyEmpty):
        recorded(tmp_path).check(BEFORE, Scan(ANOTHER, files("after", 100)))


def test_a_workspace_that_lost_nearly_all_files(tmp_path: Path) -> None:
    """The same directory too is refused, with both numbers of files; directories do not count."""
    guard = recorded(tmp_path)
    folders = {f"d{number}": Entry(Kind.DIRECTORY, 0o755, 1) for number in range(100)}
    guard.check(BEFORE, Scan(OURS, files("before", 10)))
    with pytest.raises(NearlyEmpty) as failure:
        guard.check(BEFORE | folders, Scan(OURS, files("before", 9) | folders))
    assert str(failure.value) == (
        "the workspace holds 9 files where it held 100, so nothing is synced: "
        "bring it back, or run `syncd push --force` if this is intended"
    )


@pytest.mark.parametrize(
    ("excluded", "left", "refused"),
    [(80, 2, False), (80, 1, True), (81, 0, False), (100, 0, False), (79, 3, False), (79, 2, True), (0, 10, False)],
)
@pytest.mark.parametrize("identity", [OURS, ANOTHER])
def test_what_a_new_rule_excludes(
    tmp_path: Path, identity: FileIdentity, excluded: int, left: int, *, refused: bool
) -> None:
    """It does not count: of all other files a tenth must be left, unless they are fewer than twenty."""
    guard, now = recorded(tmp_path), Scan(identity, files("before", left))
    try:
        guard.check(BEFORE, now, lambda paths: list(paths)[:excluded])
    except NearlyEmpty:
        assert refused
    else:
        assert not refused


def test_files_that_vanished_while_they_were_packed(tmp_path: Path) -> None:
    """The workspace is scanned again first."""
    guard = LossGuard("/work", str(tmp_path))
    guard.check_vanished(files("f", 100), 90)
    guard.check_vanished(files("f", SMALL_FILES - 1), SMALL_FILES - 1)
    with pytest.raises(TryLater) as failure:
        guard.check_vanished(files("f", 100), 91)
    assert str(failure.value) == (
        "91 of the workspace's 100 files vanished while they were packed: they are looked for again"
    )


@pytest.mark.parametrize(("before", "left", "expected"), [(20, 1, True), (20, 2, False), (19, 0, False)])
def test_how_many_files_make_a_workspace(before: int, left: int, *, expected: bool) -> None:
    """Of 20 and more, a tenth must be left; whatever else is there by now."""
    now = files("after", 100) | files("before", left)
    assert is_replaced(files("before", before), now) is expected
