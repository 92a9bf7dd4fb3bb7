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
    WakeEvent,
    all_changes,
    opened,
    receive,
    receive_until,
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
    change: Callable[[Path], object], watch: InotifyWatch, wake_event: WakeEvent, root: Path
) -> None:
    """Every change of a snapshot's content wakes the loop, and names its directory."""
    change(root / "src")
    received = receive_until(watch, wake_event, "src")
    assert received.dirty - {"src", "src/empty"} == set()
    assert received.rescan_reason is None


def test_changes_between_watching_and_listing_are_reported(wake_event: WakeEvent, root: Path) -> None:
    """A change after a directory was added is reported, even if the listing that follows includes it."""
    watch = InotifyWatch(str(root), wake_event.wake)
    watch.begin()
    with opened(root / "src") as fd:
        watch.add_directory("src", fd, Rules())
        (root / "src/new").touch()
        assert receive(watch, wake_event).dirty == {"src"}
    watch.close()


def test_reading_causes_no_events(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """The daemon's own scan and packaging (listing, opening, reading, adding again) cause no events."""
    walk(watch, root)
    for folder, _, names in os.walk(root):
        for name in names:
            (Path(folder) / name).read_bytes()
            os.stat(Path(folder) / name)
    walk(watch, root)
    assert all_changes(watch, wake_event, root) == Changes()
    assert wake_event.count == 1


def test_an_excluded_name_does_not_wake(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """A log written in a watched directory causes no sync, nor does its deletion."""
    walk(watch, root, Rules((".log", "build/")))
    for name in ("x.log", "y.log"):
        (root / "src" / name).write_text("line")
    (root / "src/x.log").rename(root / "src/z.log")
    (root / "src/z.log").unlink()
    (root / "src/build").mkdir()
    assert all_changes(watch, wake_event, root) == Changes()
    (root / "src/build").rmdir()
    (root / "src/build").touch()
    receive_until(watch, wake_event, "src")


def test_an_ignored_file_renamed_to_an_included_name_wakes(
    watch: InotifyWatch, wake_event: WakeEvent, root: Path
) -> None:
    """Editors write a temporary file and rename it: only the second name is relevant."""
    walk(watch, root, Rules((".tmp",)))
    (root / "src/a.tmp").write_text("new")
    assert all_changes(watch, wake_event, root) == Changes()
    os.replace(root / "src/a.tmp", root / "src/a.py")
    receive_until(watch, wake_event, "src")


@pytest.mark.parametrize("name", [".gitignore", ".syncdignore"])
def test_ignore_files_wake_even_if_ignored(name: str, watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """They decide which other paths are included."""
    walk(watch, root, Rules(("ignore",)))
    (root / "src" / name).write_text("*.o")
    receive_until(watch, wake_event, "src")


def test_ignored_directories_have_no_watch(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """A directory that is not walked has no watch, and one that becomes ignored loses its watch."""
    for number in range(50):
        (root / f"node_modules/p{number}").mkdir(parents=True)
    walk(watch, root, Rules(("node_modules/",)))
    assert watches(watch) == 5
    walk(watch, root, Rules(("node_modules/", "deep/")))
    assert watches(watch) == 4
    watch.take()
    (root / "src/deep/file").touch()
    (root / "node_modules/p1/file").touch()
    assert all_changes(watch, wake_event, root).dirty <= {""}


def test_an_aborted_scan_changes_nothing(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """After a scan that failed halfway, the directories that it did not reach are still watched."""
    watch.begin()
    with opened(root) as fd:
        watch.add_directory("", fd, Rules())
    watch.abort()
    assert watches(watch) == 5
    (root / "src/deep/file").touch()
    receive_until(watch, wake_event, "src/deep")


def test_a_deleted_directory_is_forgotten(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """The kernel drops its watch, and the watch forgets it before any scan."""
    shutil.rmtree(root / "src/deep")
    all_changes(watch, wake_event, root)
    assert sorted(place.path for place in watch._targets.values()) == ["", "src", "src/empty", "zz"]


def test_a_removed_directory_is_named(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """Its parent is named too: another directory may have its name, and its inode number, by the next scan."""
    (root / "src/deep/low").mkdir()
    walk(watch, root)
    all_changes(watch, wake_event, root)
    shutil.rmtree(root / "src/deep")
    assert all_changes(watch, wake_event, root).dirty == {"src", "src/deep", "src/deep/low"}


def test_a_tree_moved_out_is_no_longer_watched(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """After a scan without it, its changes are not reported."""
    (root / "src").rename(root.parent / "gone")
    assert all_changes(watch, wake_event, root).dirty == {""}
    walk(watch, root)
    assert watches(watch) == 2
    (root.parent / "gone/deep/file").touch()
    assert all_changes(watch, wake_event, root) == Changes()


def test_a_directory_is_watched_by_its_descriptor(wake_event: WakeEvent, root: Path) -> None:
    """The watch is on the directory that the scan opened, not on one that has its name later."""
    watch = InotifyWatch(str(root), wake_event.wake)
    watch.begin()
    with opened(root / "src") as fd:
        (root / "src").rename(root / "moved")
        (root / "src").symlink_to("zz")
        watch.add_directory("src", fd, Rules())
    (root / "zz/file").touch()
    (root / "moved/file").touch()
    assert receive(watch, wake_event).dirty == {"src"}
    assert watches(watch) == 1
    watch.close()


def test_one_directory_at_two_paths_needs_a_rescan(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """A bind mount shows one inode twice, and events do not tell the path: a full scan is needed."""
    watch.begin()
    with opened(root / "src") as fd:
        watch.add_directory("src", fd, Rules())
        watch.add_directory("again", fd, Rules())
    watch.finish()
    (root / "src/file").touch()
    assert receive(watch, wake_event) == Changes(frozenset(), RescanReason.UNKNOWN_DIRECTORY)


def test_a_burst_wakes_once(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """Until the changes are taken, there is no second wake-up."""
    for number in range(300):
        (root / f"src/{number}").touch()
    (root / "zz/last").touch()
    assert wake_event.wait()
    while "zz" not in watch._change_queue._dirty:  # nothing wakes any more that could be waited for
        threading.Event().wait(0.001)
    assert wake_event.count == 1
    assert watch.take().dirty == {"src", "zz"}
    (root / "src/one more").touch()
    assert wake_event.wait()
    assert wake_event.count == 2


def test_too_many_directories_need_a_rescan() -> None:
    """Listing them all costs more than a full scan: the list is bounded."""
    box = changes.ChangeQueue(lambda: None)
    for number in range(changes.MAX_DIRTY):
        box.put({str(number)})
    assert box.take() == Changes(frozenset(map(str, range(changes.MAX_DIRTY))))
    box.put(set(map(str, range(changes.MAX_DIRTY + 1))))
    assert box.take() == Changes(frozenset(), RescanReason.TOO_MANY)


def test_an_overflow_is_detected_and_later_changes_are_reported(
    watch: InotifyWatch, wake_event: WakeEvent, root: Path
) -> None:
    """More events than the kernel keeps while the reader is blocked need a rescan; later events are received."""
    with open("/proc/sys/fs/inotify/max_queued_events") as file:
        most = int(file.read())
    if most > 100_000:
        pytest.skip(f"the kernel keeps {most} events, too many to fill in a test")
    with watch._lock:
        (root / "src/first").touch()
        for number in range(most):  # two names in turn, or the kernel would merge them
            os.chmod(root / "src/a.py", 0o600 + number % 2)
            os.chmod(root / "src/b.py", 0o600 + number % 2)
    receive(watch, wake_event, lambda received: received.rescan_reason is RescanReason.OVERFLOW)
    assert all_changes(watch, wake_event, root).rescan_reason is None
    assert watch.alive()


class FailingRules(Rules):
    """Rules with a bug."""

    def decide(self, name: str, is_dir: bool) -> FakeDecision:
        raise ZeroDivisionError


def test_an_error_while_an_event_is_processed_needs_a_rescan(
    watch: InotifyWatch, wake_event: WakeEvent, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The reader survives any error in the code that it calls, and the scan finds what was lost."""
    watch.begin()
    with opened(root / "src") as fd:
        watch.add_directory("src", fd, FailingRules())
    with opened(root / "zz") as fd:
        watch.add_directory("zz", fd, Rules())
    watch.finish()
    with caplog.at_level(logging.CRITICAL):
        (root / "src/new").touch()
        assert receive(watch, wake_event).rescan_reason is RescanReason.ERROR
        walk(watch, root)
    (root / "src/newer").touch()
    receive_until(watch, wake_event, "src")


def test_a_dead_reader_is_replaced_by_the_next_scan(
    watch: InotifyWatch, wake_event: WakeEvent, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It wakes the loop, shows in `alive()`, and ends with the next scan."""
    assert watch.alive()
    reader = watch._inotify
    assert reader is not None

    def broken(_events: object) -> None:
        raise ZeroDivisionError

    reader._deliver = broken
    with caplog.at_level(logging.CRITICAL):
        (root / "src/new").touch()
        assert receive(watch, wake_event).rescan_reason is RescanReason.READER_DIED
        reader.join()
    assert not watch.alive()
    assert watch.needs_polling
    walk(watch, root)
    assert watch.alive()
    assert not watch.needs_polling
    (root / "src/newer").touch()
    receive_until(watch, wake_event, "src")


def test_closing_leaves_no_thread_and_no_descriptor(wake_event: WakeEvent, root: Path) -> None:
    """In every state: never opened, open, scanned, closed before, dead."""
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    watch = InotifyWatch(str(root), wake_event.wake)
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


def test_a_directory_deeper_than_a_path_may_be_long_is_watched(wake_event: WakeEvent, tmp_path: Path) -> None:
    """Watches use descriptors, so PATH_MAX does not limit them."""
    watch = InotifyWatch(str(tmp_path), wake_event.wake)
    watch.begin()
    name, path = "d" * 200, ""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(25):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd, path = below, f"{path}/{name}" if path else name
        watch.add_directory(path, fd, Rules())
    watch.take()
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    receive_until(watch, wake_event, path)
    os.close(fd)
    watch.close()
    shutil.rmtree(tmp_path / name)


def test_a_real_scan_adds_its_directories(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> None:
    """With the real scanner and its rules: excluded names do not wake the loop, others do."""
    (root / ".gitignore").write_text("*.log\n")
    (root / "src/.gitignore").write_text("!kept.log\n/deep/\n")
    scanner = Scanner(str(root), Selection(SelectionSettings()), watch)
    scanner.scan()
    all_changes(watch, wake_event, root)
    assert watches(watch) == len(["", "src", "src/empty", "zz"])
    (root / "src/x.log").touch()
    (root / "src/deep/file").touch()
    assert all_changes(watch, wake_event, root) == Changes()
    (root / "src/kept.log").touch()
    receive_until(watch, wake_event, "src")
