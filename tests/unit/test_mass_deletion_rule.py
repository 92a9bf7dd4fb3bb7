"""The thresholds for a workspace that was lost: the number of its files, and the names in another directory."""

from __future__ import annotations

import pytest

from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.scan.guards import LEFT_ONE_IN, SMALL_FILES, is_replaced, lost_nearly_all

FILE = Entry(Kind.FILE, 0o644, 1_000, 5)
LINK = Entry(Kind.SYMLINK, 0o777, 1_000, target="file0")
FOLDER = Entry(Kind.DIRECTORY, 0o755, 1_000)


def files(numbers: range, entry: Entry = FILE) -> Manifest:
    """Return a workspace of numbered files in one folder."""
    return {"folder": FOLDER, **{f"folder/{number}": entry for number in numbers}}


@pytest.mark.parametrize("before", range(SMALL_FILES))
def test_few_files_may_all_be_deleted(before: int) -> None:
    """In a small workspace the last file may be deleted like any other."""
    assert not lost_nearly_all(before, 0)


@pytest.mark.parametrize("before", [*range(SMALL_FILES, 60), 99, 100, 101, 999, 50_000, 1_000_000])
def test_less_than_a_tenth_left(before: int) -> None:
    """A tenth is enough, one file less is not; growth is never a loss."""
    enough = -(-before // LEFT_ONE_IN)
    assert lost_nearly_all(before, 0)
    assert lost_nearly_all(before, enough - 1)
    assert not lost_nearly_all(before, enough)
    assert not lost_nearly_all(before, before)
    assert not lost_nearly_all(before, 10 * before)


@pytest.mark.parametrize(
    ("before", "now", "another"),
    [
        ({}, {}, False),
        ({}, files(range(50)), False),
        ({"folder": FOLDER}, {}, False),
        (files(range(1)), {}, False),
        (files(range(19)), files(range(50, 60)), False),
        (files(range(20)), files(range(50, 90)), True),
        (files(range(1)), files(range(1)), False),
        (files(range(1)), files(range(1), LINK), False),
        (files(range(30)), files(range(30)), False),
        (files(range(30)), files(range(100, 400)), True),
        (files(range(30)), files(range(28, 200)), True),
        (files(range(30)), files(range(27, 200)), False),
        (files(range(30)), files(range(3)), False),
        (files(range(30)), files(range(30), FOLDER), True),
    ],
)
def test_another_directory(before: Manifest, now: Manifest, *, another: bool) -> None:
    """A directory in the workspace's place must hold a tenth of its names; in place of a small workspace, none."""
    assert is_replaced(before, now) is another
