"""The snapshots of one workspace for two sandboxes, which share the scanner and what is known of the contents."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.archive.snapshotter import Snapshotter, SyncMode
from syncd.model.manifest import Manifest
from tests.component.pack_rig import workspace_in

NOTHING, CHANGED = Manifest(), SyncMode.CHANGED


@pytest.fixture
def two(tmp_path: Path) -> tuple[Snapshotter, Snapshotter]:
    """What takes the snapshots for each, of a workspace with two files."""
    work = tmp_path / "work"
    work.mkdir()
    for name in "fg":
        (work / name).write_text("before")
    workspace = workspace_in(tmp_path)
    return workspace.snapshotter("main"), workspace.snapshotter("blue")


def test_what_was_packed_for_one_is_known_to_the_other(two: tuple[Snapshotter, Snapshotter]) -> None:
    """It need not be read again."""
    one, other = two
    packed = one.pack(one.scan(NOTHING, CHANGED).manifest)
    assert other.scan(NOTHING, CHANGED, ()).manifest["f"].digest == packed.manifest["f"].digest != b""


def test_what_was_packed_late_is_not_taken_for_newer(two: tuple[Snapshotter, Snapshotter], tmp_path: Path) -> None:
    """No event tells once more of what the other one's scan has found since."""
    one, other = two
    late = one.scan(NOTHING, CHANGED).manifest
    (tmp_path / "work" / "f").write_text("what is here now")
    now = other.scan(NOTHING, CHANGED).manifest["f"]
    one.pack(late, ["g"])
    assert other.scan(NOTHING, CHANGED, ()).manifest["f"].size_bytes == now.size_bytes
