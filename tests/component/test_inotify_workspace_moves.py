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
    WakeEvent,
    all_changes,
    kernel_watches,
    receive,
    receive_until,
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
def test_a_removed_workspace_needs_a_rescan(
    change: Callable[[Path], object], watch: InotifyWatch, wake_event: WakeEvent, root: Path
) -> None:
    """Its move, removal or replacement is reported as such: events of its content are not reliable any more."""
    change(root)
    assert receive(watch, wake_event, lambda changes: changes.rescan_reason is RescanReason.WORKSPACE)


def test_a_workspace_put_back_is_reported_and_watched(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """Its parent reports at once that it is back; the scan that follows watches it as before."""
    root.rename(root.with_name("elsewhere"))
    receive(watch, wake_event, lambda changes: changes.rescan_reason is RescanReason.WORKSPACE)
    with pytest.raises(FileNotFoundError):
        walk(watch, root)
    all_changes(watch, wake_event, root.with_name("elsewhere"))
    root.with_name("elsewhere").rename(root)
    receive(watch, wake_event, lambda changes: changes.rescan_reason is RescanReason.WORKSPACE)
    walk(watch, root)
    (root / "src/deep/file").touch()
    receive_until(watch, wake_event, "src/deep")


def test_a_moved_workspace_is_reported_without_its_parent(
    watch: InotifyWatch, wake_event: WakeEvent, root: Path
) -> None:
    """The parent may be unreadable: the workspace's own watch reports it too."""
    assert watch._inotify is not None
    watch._inotify.remove(watch._parent_wd)
    root.rename(root.with_name("elsewhere"))
    assert receive(watch, wake_event).rescan_reason is RescanReason.WORKSPACE


def test_siblings_of_the_workspace_do_not_wake(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """Of its parent's names only its own is relevant."""
    (root.parent / "neighbour").mkdir()
    (root.parent / "file").write_text("x")
    (root.parent / "file").unlink()
    assert all_changes(watch, wake_event, root) == Changes()


def test_the_gravest_rescan_reason_is_kept() -> None:
    """Too many directories after a move of the workspace do not hide the move."""
    box = changes.ChangeQueue(lambda: None)
    for rescan_reason in (RescanReason.UNKNOWN_DIRECTORY, RescanReason.WORKSPACE, RescanReason.TOO_MANY):
        box.put(rescan_reason=rescan_reason)
    assert box.take().rescan_reason is RescanReason.WORKSPACE


def test_a_directory_above_the_workspace_is_moved_and_put_back(wake_event: WakeEvent, tmp_path: Path) -> None:
    """The workspace itself does not change, but its path leads elsewhere or nowhere: a rescan reason every time."""
    root = tmp_path / "far/near/work"
    root.mkdir(parents=True)
    watch = InotifyWatch(str(root), wake_event.wake)
    for number, name in enumerate(("far/near", "far", "far/near", "far")):
        walk(watch, root)
        assert kernel_watches(watch._inotify._inotify_fd) == 1 + len(root.parents) - 1  # type: ignore[union-attr]
        watch.take()
        aside = tmp_path / f"aside{number}"
        (tmp_path / name).rename(aside)
        assert receive(watch, wake_event).rescan_reason is RescanReason.WORKSPACE
        if number % 2:
            root.mkdir(parents=True)
        else:
            aside.rename(tmp_path / name)
    watch.close()


def test_changes_above_the_workspace_do_not_wake(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """Siblings come and go, in the same directory and further up."""
    for folder in (root.parent, root.parent.parent):
        (folder / "neighbour").mkdir()
        (folder / "neighbour").rmdir()
    assert all_changes(watch, wake_event, root) == Changes()
