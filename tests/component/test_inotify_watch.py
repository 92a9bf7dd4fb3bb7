"""The inotify watch: relevant changes are reported, others are not, and lost events cause a full scan."""

from __future__ import annotations

import logging
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection, SelectionSettings
from syncd.watch import changes
from syncd.watch.changes import Changes, RescanReason
from syncd.watch.inotify_watch import InotifyWatch
from tests.component.watch_rig import (
    FakeDecision,
    Rules,
    WakeSignal,
    collect_changes,
    collect_until,
    kernel_watches,
    opened,
    walk,
)


@pytest.fixture
def wakes() -> Iterator[WakeSignal]:
    wakes = WakeSignal()
    yield wakes
    wakes.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "work"
    (root / "src/deep").mkdir(parents=True)
    (root / "zz").mkdir()
    (root / "src/a.py").write_bytes(b"a" * 8192)
    (root / "src/b.py").write_text("b")
    (root / "src/empty").mkdir()
    return root


@pytest.fixture
def watch(root: Path, wakes: WakeSignal) -> Iterator[InotifyWatch]:
    watch = InotifyWatch(str(root), wakes.wake)
    watch.open()
    walk(watch, root)
    yield watch
    watch.close()


def watches(watch: InotifyWatch) -> int:
    """Return the kernel's count, without the watches on the workspace's parents."""
    assert watch._inotify is not None
    return kernel_watches(watch._inotify._inotify_fd) - len(watch._above)


def changes_so_far(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> Changes:
    """Return the changes up to one in zz, whose event comes after all before it."""
    (root / "zz" / str(len(os.listdir(root / "zz")))).symlink_to("nowhere")
    heard = collect_until(watch, wakes, "zz")
    return Changes(heard.dirty - {"zz"}, heard.rescan_reason, heard.written, heard.unlinked)


def append(src: Path) -> None:
    with open(src / "a.py", "ab") as file:
        file.write(b"more")


def write_in_place(src: Path) -> None:
    with open(src / "a.py", "r+b") as file:
        file.write(b"x")


def write_through_mmap(src: Path) -> None:
    with open(src / "a.py", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = 0x21


def replace(src: Path) -> None:
    (src / "a.py.new").write_text("new")
    os.replace(src / "a.py.new", src / "a.py")


CHANGES: dict[str, Callable[[Path], object]] = {
    "create": lambda src: (src / "new").touch(),
    "append": append,
    "write in place": write_in_place,
    "write through mmap": write_through_mmap,
    "truncate": lambda src: os.truncate(src / "a.py", 1),
    "replace": replace,
    "delete": lambda src: (src / "a.py").unlink(),
    "rename": lambda src: (src / "a.py").rename(src / "c.py"),
    "move out": lambda src: (src / "a.py").rename(src.parent.parent / "a.py"),
    "chmod": lambda src: (src / "a.py").chmod(0o755),
    "chmod of a directory": lambda src: (src / "empty").chmod(0o700),
    "touch": lambda src: os.utime(src / "a.py", (1, 1)),
    "symlink": lambda src: (src / "link").symlink_to("a.py"),
    "hard link": lambda src: os.link(src / "a.py", src / "hard"),
    "make a directory": lambda src: (src / "new").mkdir(),
    "remove a directory": lambda src: (src / "empty").rmdir(),
    "rename a directory": lambda src: (src / "empty").rename(src / "full"),
    "a name that is no text": lambda src: (Path(os.fsdecode(os.fsencode(src) + b"/\xff\xfe"))).touch(),
    "a name with a newline": lambda src: (src / "new\nline").touch(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_each_kind_of_change_names_its_directory(
    change: Callable[[Path], object], watch: InotifyWatch, wakes: WakeSignal, root: Path
) -> None:
    """A change of anything that a snapshot holds names its directory."""
    change(root / "src")
    heard = collect_until(watch, wakes, "src")
    assert heard.dirty - {"src", "src/empty"} == set()
    assert heard.rescan_reason is None


def test_a_new_tree_is_watched_after_one_scan(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """The scan that its creation causes adds all its watches."""
    (root / "n/e/w/e/s/t").mkdir(parents=True)
    assert "" in collect_changes(watch, wakes).dirty
    walk(watch, root)
    (root / "n/e/w/e/s/t/file").touch()
    collect_until(watch, wakes, "n/e/w/e/s/t")


def test_a_tree_moved_in_is_watched_after_one_scan(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """A tree that was moved in is watched like a new one."""
    (root.parent / "other/deep").mkdir(parents=True)
    (root.parent / "other").rename(root / "src/other")
    assert "src" in collect_changes(watch, wakes).dirty
    walk(watch, root)
    (root / "src/other/deep/file").touch()
    collect_until(watch, wakes, "src/other/deep")


def test_a_change_between_watching_and_listing_is_reported(wakes: WakeSignal, root: Path) -> None:
    """A change after a directory is watched is reported even if its listing has it too."""
    watch = InotifyWatch(str(root), wakes.wake)
    watch.begin()
    with opened(root / "src") as fd:
        watch.cover("src", fd, Rules())
        (root / "src/new").touch()
        assert collect_changes(watch, wakes).dirty == {"src"}
    watch.close()


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


def test_reading_causes_no_events(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """The daemon's own scan and packing cause no events."""
    walk(watch, root)
    for folder, _, names in os.walk(root):
        for name in names:
            (Path(folder) / name).read_bytes()
            os.stat(Path(folder) / name)
    walk(watch, root)
    assert changes_so_far(watch, wakes, root) == Changes()
    assert wakes.rings == 1


def test_an_excluded_name_is_not_reported(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """A log written in a watched directory causes no sync, nor does its deletion."""
    walk(watch, root, Rules((".log", "build/")))
    for name in ("x.log", "y.log"):
        (root / "src" / name).write_text("line")
    (root / "src/x.log").rename(root / "src/z.log")
    (root / "src/z.log").unlink()
    (root / "src/build").mkdir()
    assert changes_so_far(watch, wakes, root) == Changes()
    (root / "src/build").rmdir()
    (root / "src/build").touch()
    collect_until(watch, wakes, "src")


def test_an_excluded_file_renamed_to_an_included_one_is_reported(
    watch: InotifyWatch, wakes: WakeSignal, root: Path
) -> None:
    """Editors write a temporary file and rename it."""
    walk(watch, root, Rules((".tmp",)))
    (root / "src/a.tmp").write_text("new")
    assert changes_so_far(watch, wakes, root) == Changes()
    os.replace(root / "src/a.tmp", root / "src/a.py")
    collect_until(watch, wakes, "src")


@pytest.mark.parametrize("name", [".gitignore", ".syncdignore"])
def test_ignore_files_are_reported_even_if_ignored(
    name: str, watch: InotifyWatch, wakes: WakeSignal, root: Path
) -> None:
    """They decide which other paths are included."""
    walk(watch, root, Rules(("ignore",)))
    (root / "src" / name).write_text("*.o")
    collect_until(watch, wakes, "src")


def test_ignored_directories_have_no_watch(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """They are not scanned, and a directory that becomes ignored loses its watch."""
    for number in range(50):
        (root / f"node_modules/p{number}").mkdir(parents=True)
    walk(watch, root, Rules(("node_modules/",)))
    assert watches(watch) == 5
    walk(watch, root, Rules(("node_modules/", "deep/")))
    assert watches(watch) == 4
    watch.take()
    (root / "src/deep/file").touch()
    (root / "node_modules/p1/file").touch()
    assert changes_so_far(watch, wakes, root).dirty <= {""}


def test_an_abandoned_scan_changes_nothing(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """After a failed scan the directories that it did not reach are still watched."""
    watch.begin()
    with opened(root) as fd:
        watch.cover("", fd, Rules())
    watch.abandon()
    assert watches(watch) == 5
    (root / "src/deep/file").touch()
    collect_until(watch, wakes, "src/deep")


def test_a_deleted_directory_is_forgotten(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """The kernel removes its watch, and the records are removed before any scan."""
    shutil.rmtree(root / "src/deep")
    changes_so_far(watch, wakes, root)
    assert sorted(place.path for place in watch._places.values()) == ["", "src", "src/empty", "zz"]


def test_a_removed_directory_is_named(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """It is named besides its parent, as another one may have its name and inode number at the next scan."""
    (root / "src/deep/low").mkdir()
    walk(watch, root)
    changes_so_far(watch, wakes, root)
    shutil.rmtree(root / "src/deep")
    assert changes_so_far(watch, wakes, root).dirty == {"src", "src/deep", "src/deep/low"}


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


def test_a_tree_moved_out_is_not_watched(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """After a scan without it, its changes are not reported."""
    (root / "src").rename(root.parent / "gone")
    assert changes_so_far(watch, wakes, root).dirty == {""}
    walk(watch, root)
    assert watches(watch) == 2
    (root.parent / "gone/deep/file").touch()
    assert changes_so_far(watch, wakes, root) == Changes()


def test_a_renamed_directory_is_reported_by_its_new_path(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """The inode keeps its watch; path and rules are those of the scan, for its contents too."""
    (root / "src").rename(root / "lib")
    assert changes_so_far(watch, wakes, root).dirty == {""}
    walk(watch, root, Rules((".log",)))
    assert watches(watch) == 5
    (root / "lib/deep/x.log").touch()
    (root / "lib/deep/file").touch()
    assert changes_so_far(watch, wakes, root).dirty == {"lib/deep"}


def test_a_replaced_directory_is_watched(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """The new inode at the path is watched, the old one no more."""
    (root / "src").rename(root.parent / "old")
    (root / "src").mkdir()
    assert changes_so_far(watch, wakes, root).dirty == {""}
    walk(watch, root)
    (root.parent / "old/file").touch()
    assert changes_so_far(watch, wakes, root) == Changes()
    (root / "src/file").touch()
    collect_until(watch, wakes, "src")


def test_a_directory_is_watched_by_its_descriptor(wakes: WakeSignal, root: Path) -> None:
    """The watch is on what the scan opened, not on what has its name since."""
    watch = InotifyWatch(str(root), wakes.wake)
    watch.begin()
    with opened(root / "src") as fd:
        (root / "src").rename(root / "moved")
        (root / "src").symlink_to("zz")
        watch.cover("src", fd, Rules())
    (root / "zz/file").touch()
    (root / "moved/file").touch()
    assert collect_changes(watch, wakes).dirty == {"src"}
    assert watches(watch) == 1
    watch.close()


def test_one_directory_at_two_paths_causes_a_full_scan(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """A bind mount shows one inode twice, and no event says which path it was."""
    watch.begin()
    with opened(root / "src") as fd:
        watch.cover("src", fd, Rules())
        watch.cover("again", fd, Rules())
    watch.finish()
    (root / "src/file").touch()
    assert collect_changes(watch, wakes) == Changes(frozenset(), RescanReason.COARSE)


def test_covering_a_directory_twice_in_a_scan_takes_the_later_rules(
    watch: InotifyWatch, wakes: WakeSignal, root: Path
) -> None:
    """A scan covers a directory before it knows its ignore files, and again with them."""
    watch.begin()
    for rules in (Rules(), Rules((".log",))):
        for path in ("src", "zz"):
            with opened(root / path) as fd:
                watch.cover(path, fd, rules)
    watch.finish()
    (root / "src/x.log").touch()
    assert changes_so_far(watch, wakes, root) == Changes()


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


def test_a_burst_wakes_once(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """The loop is not woken again until it has taken the changes."""
    for number in range(300):
        (root / f"src/{number}").touch()
    (root / "zz/last").touch()
    assert wakes.wait()
    while "zz" not in watch._change_queue._dirty:  # nothing rings any more to wait for
        threading.Event().wait(0.001)
    assert wakes.rings == 1
    assert watch.take().dirty == {"src", "zz"}
    (root / "src/one more").touch()
    assert wakes.wait()
    assert wakes.rings == 2


def test_too_many_directories_cause_a_full_scan() -> None:
    """The list of directories is bounded."""
    box = changes.ChangeQueue(lambda: None)
    for number in range(changes.DIRTY_AT_MOST):
        box.put({str(number)})
    assert box.take() == Changes(frozenset(map(str, range(changes.DIRTY_AT_MOST))))
    box.put(set(map(str, range(changes.DIRTY_AT_MOST + 1))))
    assert box.take() == Changes(frozenset(), RescanReason.FLOOD)


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


def test_the_gravest_rescan_reason_is_kept() -> None:
    """An overflow after the workspace moved does not hide the move."""
    box = changes.ChangeQueue(lambda: None)
    for rescan_reason in (RescanReason.COARSE, RescanReason.ROOT, RescanReason.FLOOD):
        box.put(rescan_reason=rescan_reason)
    assert box.take().rescan_reason is RescanReason.ROOT


def test_an_overflow_causes_a_full_scan(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """More events than the kernel keeps cause a full scan, and later ones are reported."""
    with open("/proc/sys/fs/inotify/max_queued_events") as file:
        most = int(file.read())
    if most > 100_000:
        pytest.skip(f"the kernel keeps {most} events, too many to fill in a test")
    with watch._lock:
        (root / "src/first").touch()
        for number in range(most):  # two names in turn, or the kernel would merge them
            os.chmod(root / "src/a.py", 0o600 + number % 2)
            os.chmod(root / "src/b.py", 0o600 + number % 2)
    collect_changes(watch, wakes, lambda heard: heard.rescan_reason is RescanReason.OVERFLOW)
    assert changes_so_far(watch, wakes, root).rescan_reason is None
    assert watch.alive()


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


class FailingRules(Rules):
    """Rules with a bug."""

    def decide(self, name: str, is_dir: bool) -> FakeDecision:
        raise ZeroDivisionError


def test_an_error_in_the_event_handler_causes_a_full_scan(
    watch: InotifyWatch, wakes: WakeSignal, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The reader goes on, and the scan finds what was lost."""
    watch.begin()
    with opened(root / "src") as fd:
        watch.cover("src", fd, FailingRules())
    with opened(root / "zz") as fd:
        watch.cover("zz", fd, Rules())
    watch.finish()
    with caplog.at_level(logging.CRITICAL):
        (root / "src/new").touch()
        assert collect_changes(watch, wakes).rescan_reason is RescanReason.FAULT
        walk(watch, root)
    (root / "src/newer").touch()
    collect_until(watch, wakes, "src")


def test_a_dead_reader_is_restarted_by_the_next_scan(
    watch: InotifyWatch, wakes: WakeSignal, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its end wakes the loop and shows in `alive()`."""
    assert watch.alive()
    reader = watch._inotify
    assert reader is not None

    def broken(_events: object) -> None:
        raise ZeroDivisionError

    reader._deliver = broken
    with caplog.at_level(logging.CRITICAL):
        (root / "src/new").touch()
        assert collect_changes(watch, wakes).rescan_reason is RescanReason.DEAF
        reader.join()
    assert not watch.alive()
    assert watch.needs_polling
    walk(watch, root)
    assert watch.alive()
    assert not watch.needs_polling
    (root / "src/newer").touch()
    collect_until(watch, wakes, "src")


def test_closing_leaves_no_thread_and_no_descriptor(wakes: WakeSignal, root: Path) -> None:
    """It may be unopened, open, scanned, closed or dead."""
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    watch = InotifyWatch(str(root), wakes.wake)
    watch.close()
    for _ in range(3):
        watch.open()
        watch.open()
        walk(watch, root)
        (root / "src/a.py").touch()
        watch.close()
        watch.close()
    assert not watch.alive()
    assert watch.take().rescan_reason is None
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_closed_watch_can_be_opened_again(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """After a suspend all watches are added again."""
    watch.close()
    walk(watch, root)
    (root / "src/deep/file").touch()
    collect_until(watch, wakes, "src/deep")


def test_a_directory_deeper_than_a_path_may_be_long_is_watched(wakes: WakeSignal, tmp_path: Path) -> None:
    """Watches are added by descriptors, so PATH_MAX does not limit them."""
    watch = InotifyWatch(str(tmp_path), wakes.wake)
    watch.begin()
    name, path = "d" * 200, ""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(25):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd, path = below, f"{path}/{name}" if path else name
        watch.cover(path, fd, Rules())
    watch.take()
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    collect_until(watch, wakes, path)
    os.close(fd)
    watch.close()
    shutil.rmtree(tmp_path / name)


def test_a_real_scan_covers_for_the_watch(watch: InotifyWatch, wakes: WakeSignal, root: Path) -> None:
    """Paths that the scanner excludes are not reported, the others are."""
    (root / ".gitignore").write_text("*.log\n")
    (root / "src/.gitignore").write_text("!kept.log\n/deep/\n")
    scanner = Scanner(str(root), Selection(SelectionSettings()), watch)
    scanner.scan()
    changes_so_far(watch, wakes, root)
    assert watches(watch) == len(["", "src", "src/empty", "zz"])
    (root / "src/x.log").touch()
    (root / "src/deep/file").touch()
    assert changes_so_far(watch, wakes, root) == Changes()
    (root / "src/kept.log").touch()
    collect_until(watch, wakes, "src")
