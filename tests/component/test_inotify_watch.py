"""The inotify watch: relevant changes are reported, others are not, and lost events cause a full scan."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

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
    changes_so_far,
    collect_changes,
    collect_until,
    opened,
    walk,
    watches,
    write_through_mmap,
)


def append(src: Path) -> None:
    with open(src / "a.py", "ab") as file:
        file.write(b"more")


def write_in_place(src: Path) -> None:
    with open(src / "a.py", "r+b") as file:
        file.write(b"x")


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
    received = collect_until(watch, wakes, "src")
    assert received.dirty - {"src", "src/empty"} == set()
    assert received.rescan_reason is None


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
    collect_changes(watch, wakes, lambda received: received.rescan_reason is RescanReason.OVERFLOW)
    assert changes_so_far(watch, wakes, root).rescan_reason is None
    assert watch.alive()


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
