"""The guard notices a replaced workspace, also in the next process; a restart alone is no reason to refuse."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from syncd.core.errors import NearlyEmpty, TryLater
from syncd.core.file_identity import FileIdentity
from syncd.scan.disaster_guard import DisasterGuard
from syncd.scan.disaster_rule import LEFT_ONE_IN, SMALL_FILES
from syncd.scan.manifest import Entry, Kind, Manifest
from syncd.scan.scanner import Scan

OURS = FileIdentity(1, 2, b"ours")
ANOTHER = FileIdentity(1, 2, b"another")


def files(prefix: str, count: int) -> Manifest:
    return {f"{prefix}{number}": Entry(Kind.FILE, 0o644, 1, 5) for number in range(count)}


BEFORE = files("before", 100)


def accepted(folder: Path, identity: FileIdentity = OURS) -> DisasterGuard:
    """Return a guard that knows the workspace."""
    guard = DisasterGuard(str(folder))
    guard.accept(Scan(identity, dict(BEFORE)))
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
    """It is refused if its files are others, too."""
    guard = accepted(tmp_path)
    if restarted:
        guard = DisasterGuard(str(tmp_path))
        guard.recall()
    if not refused:
        guard.check(BEFORE, Scan(identity, now))
        return
    with pytest.raises(NearlyEmpty) as failure:
        guard.check(BEFORE, Scan(identity, now))
    assert str(failure.value) == (
        "another directory is in the workspace's place, with hardly any of its files, so nothing is synced: "
        "bring the old one back, or run `syncd push --force` if it is meant to be so"
    )


def test_without_a_record_any_directory_is_accepted(tmp_path: Path) -> None:
    """Without a record, and before it is read, no directory counts as another one."""
    accepted(tmp_path)
    DisasterGuard(str(tmp_path)).check(BEFORE, Scan(ANOTHER, files("after", 100)))
    guard = DisasterGuard(str(tmp_path / "elsewhere"))
    guard.recall()
    guard.check(BEFORE, Scan(ANOTHER, files("after", 100)))


def test_a_workspace_that_lost_nearly_all(tmp_path: Path) -> None:
    """It is refused with both numbers of files; directories do not count."""
    guard = accepted(tmp_path)
    folders = {f"d{number}": Entry(Kind.DIRECTORY, 0o755, 1) for number in range(100)}
    guard.check(BEFORE, Scan(OURS, files("before", 10)))
    with pytest.raises(NearlyEmpty) as failure:
        guard.check(BEFORE | folders, Scan(OURS, files("before", 9) | folders))
    assert str(failure.value) == (
        "the workspace holds 9 files where it held 100, so nothing is synced: "
        "bring it back, or run `syncd push --force` if it is meant to be so"
    )


def test_what_vanished_while_it_was_packed(tmp_path: Path) -> None:
    """The workspace is checked again before the loss is accepted."""
    guard = DisasterGuard(str(tmp_path))
    guard.confirm(files("f", 100), 90)
    guard.confirm(files("f", SMALL_FILES - 1), SMALL_FILES - 1)
    with pytest.raises(TryLater) as failure:
        guard.confirm(files("f", 100), 91)
    assert str(failure.value) == "91 of the workspace's 100 files vanished while they were packed"


def test_the_record_is_written_once(tmp_path: Path) -> None:
    """It is written for another directory, not at each scan."""
    guard = accepted(tmp_path)
    (record,) = tmp_path.iterdir()
    record.unlink()
    guard.accept(Scan(OURS))
    assert not record.exists()
    guard.accept(Scan(ANOTHER))
    later = DisasterGuard(str(tmp_path))
    later.recall()
    later.check(BEFORE, Scan(ANOTHER, files("after", 100)))
    with pytest.raises(NearlyEmpty):
        later.check(BEFORE, Scan(OURS, files("after", 100)))


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    """This process knows the workspace without a record."""
    guard = accepted(tmp_path / "missing")
    with pytest.raises(NearlyEmpty):
        guard.check(BEFORE, Scan(ANOTHER, files("after", 100)))


def test_a_damaged_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says what its loss costs."""
    accepted(tmp_path)
    (record,) = tmp_path.iterdir()
    record.write_bytes(b"garbage")
    guard = DisasterGuard(str(tmp_path))
    guard.recall()
    guard.check(BEFORE, Scan(ANOTHER, files("after", 100)))
    ((name, level, text),) = caplog.record_tuples
    assert (name, level) == ("syncd", logging.WARNING)
    assert "'workspace'" in text
    assert text.endswith("another directory put in the workspace's place goes unnoticed once")
