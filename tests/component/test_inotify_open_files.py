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
    WakeEvent,
    all_changes,
    opened,
    receive_until,
    write_through_mmap,
)


def test_a_file_written_through_a_mapping_is_reported_when_it_is_unmapped(
    watch: InotifyWatch, wake_event: WakeEvent, root: Path
) -> None:
    """Closing the descriptor has no event while the mapping exists: the write is reported when it is unmapped."""
    with open(root / "src/a.py", "r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    assert all_changes(watch, wake_event, root).dirty == set()
    memory[0] = 0x21
    assert all_changes(watch, wake_event, root).dirty == set()
    memory.close()
    receive_until(watch, wake_event, "src")


def test_a_file_that_was_closed_is_named(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """It may have been written through a mapping, which does not change its times."""
    write_through_mmap(root / "src")
    (root / "src/b.py").chmod(0o600)
    (root / "src/b.py").read_text()
    assert all_changes(watch, wake_event, root).written == {"src/a.py"}
    (root / "top").write_text("at the top")
    assert all_changes(watch, wake_event, root).written == {"top"}


def test_a_file_of_two_names_that_was_closed_is_named(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """It is named by the name that it is watched by, if no directory has an event."""
    os.link(root / "src/a.py", root.parent / "outside")
    all_changes(watch, wake_event, root)
    with opened(root / "src") as fd:
        watch.add_file("src/a.py", "a.py", fd)
    with open(root.parent / "outside", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = 0x21
    assert all_changes(watch, wake_event, root).written == {"src/a.py"}


@contextmanager
def unlinked(src: Path) -> Iterator[BinaryIO]:
    """Return a file that is removed while it is written."""
    with open(src / "log", "wb", buffering=0) as file:
        (src / "log").unlink()
        yield file


@contextmanager
def rotated(src: Path) -> Iterator[BinaryIO]:
    """A log that was renamed by `ln` and `rm`, and is still written."""
    with open(src / "log", "wb", buffering=0) as file:
        os.link(src / "log", src / "log.1")
        (src / "log").unlink()
        yield file


@contextmanager
def linked_late(src: Path) -> Iterator[BinaryIO]:
    """A file without a name that gets one, and is still written."""
    with open(os.open(src, os.O_TMPFILE | os.O_RDWR), "wb", buffering=0) as file:
        os.link(f"/proc/self/fd/{file.fileno()}", "new", dst_dir_fd=(folder := os.open(src, os.O_RDONLY)))
        os.close(folder)
        yield file


@pytest.mark.parametrize("kind", [unlinked, rotated, linked_late])
def test_writes_by_an_unlinked_name_do_not_wake(
    kind: Callable[[Path], AbstractContextManager[BinaryIO]], watch: InotifyWatch, wake_event: WakeEvent, root: Path
) -> None:
    """Writes to a file without a name start no scan, but the next scan includes the directory."""
    with kind(root / "src") as file:
        all_changes(watch, wake_event, root)
        count = wake_event.count
        file.write(b"more")
        assert all_changes(watch, wake_event, root) == Changes(unlinked=frozenset({"src"}))
        assert wake_event.count == count + 1
    assert all_changes(watch, wake_event, root) == Changes(unlinked=frozenset({"src"}))


def test_an_unlinked_file_of_two_names_does_not_wake(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """The file itself was watched; once it has no name, its writes are ignored."""
    os.link(root / "src/a.py", root.parent / "outside")
    with opened(root / "src") as fd:
        watch.add_file("src/a.py", "a.py", fd)
    with open(root / "src/a.py", "r+b", buffering=0) as file:
        (root / "src/a.py").unlink()
        (root.parent / "outside").unlink()
        all_changes(watch, wake_event, root)
        file.write(b"more")
        assert all_changes(watch, wake_event, root) == Changes(unlinked=frozenset({"src"}))


def test_too_many_written_files_are_not_listed() -> None:
    """Their list is bounded too; their directories are still known."""
    box = changes.ChangeQueue(lambda: None)
    many = set(map(str, range(changes.MAX_WRITTEN)))
    box.put({""}, written=many)
    assert box.take() == Changes(frozenset({""}), written=frozenset(many))
    box.put({""}, written=many)
    box.put({"d"}, written={"d/f"})
    box.put({"d"}, written={"d/g"})
    assert box.take() == Changes(frozenset({"", "d"}), written=None)
    box.put({"d"}, written={"d/f"})
    assert box.take() == Changes(frozenset({"d"}), written=frozenset({"d/f"}))


def test_too_many_writes_by_unlinked_names_need_a_rescan() -> None:
    """The list of their directories is bounded too."""
    box = changes.ChangeQueue(lambda: None)
    box.put(unlinked=set(map(str, range(changes.MAX_DIRTY + 1))))
    assert box.take() == Changes(frozenset(), RescanReason.TOO_MANY)
