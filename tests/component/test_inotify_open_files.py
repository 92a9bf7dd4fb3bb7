"""The inotify watch on files that are open: mapped, closed, unlinked, or with several names."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from syncd.watch import changes
from syncd.watch.changes import Changes, RescanReason
from syncd.watch.inotify_watch import InotifyWatch
from tests.component.watch_rig import (
    WakeSignal,
    changes_so_far,
    collect_until,
    opened,
    write_through_mmap,
)


def test_a_write_to_a_mapping_is_reported_when_it_is_unmapped(
    watch: InotifyWatch, wakes: WakeSignal, root: Path
) -> None:
    """Closing the descriptor causes no event while the mapping exists."""
    with open(root / "src/a.py", "r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    assert changes_so_far(watch, wakes, root).dirty == set()
    memory[0] = 0x21
    assert changes_so_far(watch, wakes, root).dirty == set()
    memory.close()
    collect_until(watch, wakes, "src")


def test_a_file_that_was_closed_is_named(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """It may have been written through a mapping without a new time."""
    write_through_mmap(root / "src")
    (root / "src/b.py").chmod(0o600)
    (root / "src/b.py").read_text()
    assert changes_so_far(watch, wakes, root).written == {"src/a.py"}
    (root / "top").write_text("at the top")
    assert changes_so_far(watch, wakes, root).written == {"top"}


def test_a_file_of_two_names_that_was_closed_is_named(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """It is named by the path that it is watched by, if no directory reports it."""
    os.link(root / "src/a.py", root.parent / "outside")
    changes_so_far(watch, wakes, root)
    with opened(root / "src") as fd:
        watch.cover_file("src/a.py", "a.py", fd)
    with open(root.parent / "outside", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = 0x21
    assert changes_so_far(watch, wakes, root).written == {"src/a.py"}


@contextmanager
def unlinked(src: Path) -> Iterator[BinaryIO]:
    """Return a file that is removed while it is written."""
    with open(src / "log", "wb", buffering=0) as file:
        (src / "log").unlink()
        yield file


@contextmanager
def rotated(src: Path) -> Iterator[BinaryIO]:
    """Return a log renamed by `ln` and `rm`, and still written."""
    with open(src / "log", "wb", buffering=0) as file:
        os.link(src / "log", src / "log.1")
        (src / "log").unlink()
        yield file


@contextmanager
def linked_late(src: Path) -> Iterator[BinaryIO]:
    """Return a file created without a name, linked later, and still written."""
    with open(os.open(src, os.O_TMPFILE | os.O_RDWR), "wb", buffering=0) as file:
        os.link(f"/proc/self/fd/{file.fileno()}", "new", dst_dir_fd=(folder := os.open(src, os.O_RDONLY)))
        os.close(folder)
        yield file


@pytest.mark.parametrize("kind", [unlinked, rotated, linked_late])
def test_a_write_to_an_unlinked_file_causes_no_sync(
    kind: Callable[[Path], AbstractContextManager[BinaryIO]], watch: InotifyWatch, wakes: WakeSignal, root: Path
) -> None:
    """It does not wake the loop, but the next scan reads its directory."""
    with kind(root / "src") as file:
        changes_so_far(watch, wakes, root)
        rings = wakes.rings
        file.write(b"more")
        assert changes_so_far(watch, wakes, root) == Changes(unlinked=frozenset({"src"}))
        assert wakes.rings == rings + 1
    assert changes_so_far(watch, wakes, root) == Changes(unlinked=frozenset({"src"}))


def test_a_write_to_a_file_without_names_is_not_reported(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """A file that was watched itself and lost all names is ignored."""
    os.link(root / "src/a.py", root.parent / "outside")
    with opened(root / "src") as fd:
        watch.cover_file("src/a.py", "a.py", fd)
    with open(root / "src/a.py", "r+b", buffering=0) as file:
        (root / "src/a.py").unlink()
        (root.parent / "outside").unlink()
        changes_so_far(watch, wakes, root)
        file.write(b"more")
        assert changes_so_far(watch, wakes, root) == Changes(unlinked=frozenset({"src"}))


def test_too_many_written_files_are_not_named() -> None:
    """The list of files is bounded; their directories are still named."""
    box = changes.ChangeQueue(lambda: None)
    many = set(map(str, range(changes.WRITTEN_AT_MOST)))
    box.put({""}, written=many)
    assert box.take() == Changes(frozenset({""}), written=frozenset(many))
    box.put({""}, written=many)
    box.put({"d"}, written={"d/f"})
    box.put({"d"}, written={"d/g"})
    assert box.take() == Changes(frozenset({"", "d"}), written=None)
    box.put({"d"}, written={"d/f"})
    assert box.take() == Changes(frozenset({"d"}), written=frozenset({"d/f"}))


def test_too_many_writes_to_unlinked_files_cause_a_full_scan() -> None:
    """The list of their directories is bounded, too."""
    box = changes.ChangeQueue(lambda: None)
    box.put(unlinked=set(map(str, range(changes.DIRTY_AT_MOST + 1))))
    assert box.take() == Changes(frozenset(), RescanReason.FLOOD)
