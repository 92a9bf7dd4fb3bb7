"""The inotify watch when the workspace itself, or a directory above it, moves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.watch import changes
from syncd.watch.changes import Changes, RescanReason
from syncd.watch.inotify_watch import InotifyWatch
from tests.component.watch_rig import (
    WakeSignal,
    changes_so_far,
    collect_changes,
    collect_until,
    kernel_watches,
    walk,
)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: root.rename(root.with_name("elsewhere")),
        shutil.rmtree,
        lambda root: (root.rename(root.with_name("elsewhere")), root.mkdir()),
    ],
    ids=["moved", "removed", "replaced"],
)
def test_a_missing_workspace_causes_a_full_scan(
    change: Callable[[Path], object], watch: InotifyWatch, wakes: WakeSignal, root: Path
) -> None:
    """Its move, removal or replacement is reported, as events within it no longer count."""
    change(root)
    assert collect_changes(watch, wakes, lambda changes: changes.rescan_reason is RescanReason.ROOT)


def test_a_workspace_that_comes_back_is_watched(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """Its parent reports at once that it is back, and the next scan watches it."""
    root.rename(root.with_name("elsewhere"))
    collect_changes(watch, wakes, lambda changes: changes.rescan_reason is RescanReason.ROOT)
    with pytest.raises(FileNotFoundError):
        walk(watch, root)
    changes_so_far(watch, wakes, root.with_name("elsewhere"))
    root.with_name("elsewhere").rename(root)
    collect_changes(watch, wakes, lambda changes: changes.rescan_reason is RescanReason.ROOT)
    walk(watch, root)
    (root / "src/deep/file").touch()
    collect_until(watch, wakes, "src/deep")


def test_a_workspace_move_is_reported_without_its_parent(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """The workspace's own watch reports it if the parent is unreadable."""
    assert watch._inotify is not None
    watch._inotify.remove(watch._parent_wd)
    root.rename(root.with_name("elsewhere"))
    assert collect_changes(watch, wakes).rescan_reason is RescanReason.ROOT


def test_siblings_of_the_workspace_are_not_reported(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """Of its parent's names only its own counts."""
    (root.parent / "neighbour").mkdir()
    (root.parent / "file").write_text("x")
    (root.parent / "file").unlink()
    assert changes_so_far(watch, wakes, root) == Changes()


def test_the_gravest_rescan_reason_is_kept() -> None:
    """An overflow after the workspace moved does not hide the move."""
    box = changes.ChangeQueue(lambda: None)
    for rescan_reason in (RescanReason.COARSE, RescanReason.ROOT, RescanReason.FLOOD):
        box.put(rescan_reason=rescan_reason)
    assert box.take().rescan_reason is RescanReason.ROOT


def test_a_directory_above_the_workspace_goes_and_comes_back(wakes: WakeSignal, tmp_path: Path) -> None:
    """A move of a parent changes what the path leads to, and causes a full scan each time."""
    root = tmp_path / "far/near/work"
    root.mkdir(parents=True)
    watch = InotifyWatch(str(root), wakes.wake)
    for number, name in enumerate(("far/near", "far", "far/near", "far")):
        walk(watch, root)
        assert kernel_watches(watch._inotify._inotify_fd) == 1 + len(root.parents) - 1  # type: ignore[union-attr]
        watch.take()
        aside = tmp_path / f"aside{number}"
        (tmp_path / name).rename(aside)
        assert collect_changes(watch, wakes).rescan_reason is RescanReason.ROOT
        if number % 2:
            root.mkdir(parents=True)
        else:
            aside.rename(tmp_path / name)
    watch.close()


def test_changes_above_the_workspace_are_not_reported(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """Siblings of the workspace and of its parents change unreported."""
    for folder in (root.parent, root.parent.parent):
        (folder / "neighbour").mkdir()
        (folder / "neighbour").rmdir()
    assert changes_so_far(watch, wakes, root) == Changes()
