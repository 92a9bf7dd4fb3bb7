"""The inotify watch when the workspace itself, or a directory above it, moves."""

from __future__ import annotations

from pathlib import Path

from syncd.core.clock import SystemClock
from syncd.watch.changes import Changes
from syncd.watch.inotify_watch import InotifyWatch
from tests.component.watch_rig import (
    kernel_watches,
    walk,
)


def test_siblings_of_the_workspace_do_not_wake(watch: InotifyWatch, root: Path) -> None:
    """Of its parent's names only its own is relevant."""
    (root.parent / "neighbour").mkdir()
    (root.parent / "file").write_text("x")
    (root.parent / "file").unlink()
    assert watch.take() == Changes()


def test_a_directory_above_the_workspace_is_moved_and_put_back(tmp_path: Path) -> None:
    """The workspace itself does not change, but its path leads elsewhere or nowhere: a rescan reason every time."""
    root = tmp_path / "far/near/work"
    root.mkdir(parents=True)
    watch = InotifyWatch(str(root), SystemClock())
    for number, name in enumerate(("far/near", "far", "far/near", "far")):
        walk(watch, root)
        assert kernel_watches(watch._inotify.filenos()[0]) == 1 + len(root.parents) - 1  # type: ignore[union-attr]
        watch.take()
        aside = tmp_path / f"aside{number}"
        (tmp_path / name).rename(aside)
        assert watch.take().rescan
        if number % 2:
            root.mkdir(parents=True)
        else:
            aside.rename(tmp_path / name)
    watch.close()
