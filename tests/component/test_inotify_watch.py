"""Changes of a real tree are heard, what does not matter is not, and what was lost is known to be."""

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
from tests.component.watch_rig import Bell, Rules, Ruling, hear, hear_until, kernel_watches, opened, walk


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell()
    yield bell
    bell.close()


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
def watch(root: Path, bell: Bell) -> Iterator[InotifyWatch]:
    watch = InotifyWatch(str(root), bell.wake)
    watch.open()
    walk(watch, root)
    yield watch
    watch.close()


def watches(watch: InotifyWatch) -> int:
    """The kernel's count, less those on the directories that the workspace is in."""
    assert watch._inotify is not None
    return kernel_watches(watch._inotify._inotify_fd) - len(watch._above)


def last_word(watch: InotifyWatch, bell: Bell, root: Path) -> Changes:
    """What was heard up to now: a change in zz, whose one event comes after all that went before."""
    (root / "zz" / str(len(os.listdir(root / "zz")))).symlink_to("nowhere")
    heard = hear_until(watch, bell, "zz")
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
    change: Callable[[Path], object], watch: InotifyWatch, bell: Bell, root: Path
) -> None:
    """Whatever changes what a snapshot holds rings, and names the directory it is in."""
    change(root / "src")
    heard = hear_until(watch, bell, "src")
    assert heard.dirty - {"src", "src/empty"} == set()
    assert heard.rescan_reason is None


def test_a_tree_made_at_once_is_heard_to_its_depths_after_one_scan(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """A new tree gets its watches from the scan that its creation starts."""
    (root / "n/e/w/e/s/t").mkdir(parents=True)
    assert "" in hear(watch, bell).dirty
    walk(watch, root)
    (root / "n/e/w/e/s/t/file").touch()
    hear_until(watch, bell, "n/e/w/e/s/t")


def test_a_tree_moved_in_is_heard_to_its_depths_after_one_scan(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """A tree that was moved in whole is watched like one that was made in place."""
    (root.parent / "other/deep").mkdir(parents=True)
    (root.parent / "other").rename(root / "src/other")
    assert "src" in hear(watch, bell).dirty
    walk(watch, root)
    (root / "src/other/deep/file").touch()
    hear_until(watch, bell, "src/other/deep")


def test_what_appears_between_watching_and_listing_is_heard(bell: Bell, root: Path) -> None:
    """A change made once a directory is covered is heard even if the listing that follows sees it too."""
    watch = InotifyWatch(str(root), bell.wake)
    watch.begin()
    with opened(root / "src") as fd:
        watch.cover("src", fd, Rules())
        (root / "src/new").touch()
        assert hear(watch, bell).dirty == {"src"}
    watch.close()


def test_a_file_written_through_a_mapping_alone_is_heard_when_it_is_unmapped(
    watch: InotifyWatch, bell: Bell, root: Path
) -> None:
    """Closing the descriptor tells nothing while the mapping lives: the write is heard when that goes."""
    with open(root / "src/a.py", "r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    assert last_word(watch, bell, root).dirty == set()
    memory[0] = 0x21
    assert last_word(watch, bell, root).dirty == set()
    memory.close()
    hear_until(watch, bell, "src")


def test_reading_everything_starts_nothing(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """The daemon's own scan and packaging (listing, opening, reading, re-covering) are no events."""
    walk(watch, root)
    for folder, _, names in os.walk(root):
        for name in names:
            (Path(folder) / name).read_bytes()
            os.stat(Path(folder) / name)
    walk(watch, root)
    assert last_word(watch, bell, root) == Changes()
    assert bell.rings == 1


def test_a_name_left_out_does_not_ring(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """A log that is written all the time in a watched directory causes no work, nor does its deletion."""
    walk(watch, root, Rules((".log", "build/")))
    for name in ("x.log", "y.log"):
        (root / "src" / name).write_text("line")
    (root / "src/x.log").rename(root / "src/z.log")
    (root / "src/z.log").unlink()
    (root / "src/build").mkdir()
    assert last_word(watch, bell, root) == Changes()
    (root / "src/build").rmdir()
    (root / "src/build").touch()
    hear_until(watch, bell, "src")


def test_an_ignored_file_renamed_to_one_that_belongs_rings(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """Editors write a temporary file and rename it: only the second name counts, and it does."""
    walk(watch, root, Rules((".tmp",)))
    (root / "src/a.tmp").write_text("new")
    assert last_word(watch, bell, root) == Changes()
    os.replace(root / "src/a.tmp", root / "src/a.py")
    hear_until(watch, bell, "src")


@pytest.mark.parametrize("name", [".gitignore", ".syncdignore"])
def test_ignore_files_ring_even_if_ignored(name: str, watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """They decide what else belongs."""
    walk(watch, root, Rules(("ignore",)))
    (root / "src" / name).write_text("*.o")
    hear_until(watch, bell, "src")


def test_ignored_directories_have_no_watch(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """What is not walked costs no watch, and a directory that becomes ignored loses the one it has."""
    for number in range(50):
        (root / f"node_modules/p{number}").mkdir(parents=True)
    walk(watch, root, Rules(("node_modules/",)))
    assert watches(watch) == 5
    walk(watch, root, Rules(("node_modules/", "deep/")))
    assert watches(watch) == 4
    watch.take()
    (root / "src/deep/file").touch()
    (root / "node_modules/p1/file").touch()
    assert last_word(watch, bell, root).dirty <= {""}


def test_an_abandoned_scan_changes_nothing(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """A scan that failed halfway leaves the directories it did not reach watched."""
    watch.begin()
    with opened(root) as fd:
        watch.cover("", fd, Rules())
    watch.abandon()
    assert watches(watch) == 5
    (root / "src/deep/file").touch()
    hear_until(watch, bell, "src/deep")


def test_a_deleted_directory_is_forgotten(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """The kernel drops its watch, and so does the book-keeping, before any scan."""
    shutil.rmtree(root / "src/deep")
    last_word(watch, bell, root)
    assert sorted(place.path for place in watch._places.values()) == ["", "src", "src/empty", "zz"]


def test_a_removed_directory_is_named_itself(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """Besides the one it was in: another one may have its name, and its inode number, by the time of the next look."""
    (root / "src/deep/low").mkdir()
    walk(watch, root)
    last_word(watch, bell, root)
    shutil.rmtree(root / "src/deep")
    assert last_word(watch, bell, root).dirty == {"src", "src/deep", "src/deep/low"}


def test_a_file_that_was_closed_is_named(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """Who wrote to it may have done so through a mapping, with no time of the file to tell."""
    write_through_mmap(root / "src")
    (root / "src/b.py").chmod(0o600)
    (root / "src/b.py").read_text()
    assert last_word(watch, bell, root).written == {"src/a.py"}
    (root / "top").write_text("at the top")
    assert last_word(watch, bell, root).written == {"top"}


def test_a_file_of_two_names_that_was_closed_is_named(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """By the name that it is watched by, if no directory tells."""
    os.link(root / "src/a.py", root.parent / "outside")
    last_word(watch, bell, root)
    with opened(root / "src") as fd:
        watch.cover_file("src/a.py", "a.py", fd)
    with open(root.parent / "outside", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = 0x21
    assert last_word(watch, bell, root).written == {"src/a.py"}


@contextmanager
def unlinked(src: Path) -> Iterator[BinaryIO]:
    """A file that was removed while it is written to."""
    with open(src / "log", "wb", buffering=0) as file:
        (src / "log").unlink()
        yield file


@contextmanager
def rotated(src: Path) -> Iterator[BinaryIO]:
    """A log that was given another name by `ln` and `rm`, and is written on."""
    with open(src / "log", "wb", buffering=0) as file:
        os.link(src / "log", src / "log.1")
        (src / "log").unlink()
        yield file


@contextmanager
def linked_late(src: Path) -> Iterator[BinaryIO]:
    """A file without a name that is given one, and is written on."""
    with open(os.open(src, os.O_TMPFILE | os.O_RDWR), "wb", buffering=0) as file:
        os.link(f"/proc/self/fd/{file.fileno()}", "new", dst_dir_fd=(folder := os.open(src, os.O_RDONLY)))
        os.close(folder)
        yield file


@pytest.mark.parametrize("kind", [unlinked, rotated, linked_late])
def test_writes_by_a_name_that_is_gone_ring_no_bell(
    kind: Callable[[Path], AbstractContextManager[BinaryIO]], watch: InotifyWatch, bell: Bell, root: Path
) -> None:
    """A program that goes on writing to a file without a name is no reason to look, but the next look looks there."""
    with kind(root / "src") as file:
        last_word(watch, bell, root)
        rings = bell.rings
        file.write(b"more")
        assert last_word(watch, bell, root) == Changes(unlinked=frozenset({"src"}))
        assert bell.rings == rings + 1
    assert last_word(watch, bell, root) == Changes(unlinked=frozenset({"src"}))


def test_a_file_of_two_names_that_is_gone_rings_no_bell(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """It was watched itself; written on without any name, it is nobody's business."""
    os.link(root / "src/a.py", root.parent / "outside")
    with opened(root / "src") as fd:
        watch.cover_file("src/a.py", "a.py", fd)
    with open(root / "src/a.py", "r+b", buffering=0) as file:
        (root / "src/a.py").unlink()
        (root.parent / "outside").unlink()
        last_word(watch, bell, root)
        file.write(b"more")
        assert last_word(watch, bell, root) == Changes(unlinked=frozenset({"src"}))


def test_a_tree_moved_out_is_heard_no_more(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """No phantom watches: once a scan missed it, its changes are nobody's business."""
    (root / "src").rename(root.parent / "gone")
    assert last_word(watch, bell, root).dirty == {""}
    walk(watch, root)
    assert watches(watch) == 2
    (root.parent / "gone/deep/file").touch()
    assert last_word(watch, bell, root) == Changes()


def test_a_renamed_directory_speaks_under_its_new_path(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """The same inode keeps its watch; path and rules follow the scan, for all that is in it too."""
    (root / "src").rename(root / "lib")
    assert last_word(watch, bell, root).dirty == {""}
    walk(watch, root, Rules((".log",)))
    assert watches(watch) == 5
    (root / "lib/deep/x.log").touch()
    (root / "lib/deep/file").touch()
    assert last_word(watch, bell, root).dirty == {"lib/deep"}


def test_a_directory_replaced_by_another_is_watched_anew(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """The same path with another inode: the new one is heard, the old one no more."""
    (root / "src").rename(root.parent / "old")
    (root / "src").mkdir()
    assert last_word(watch, bell, root).dirty == {""}
    walk(watch, root)
    (root.parent / "old/file").touch()
    assert last_word(watch, bell, root) == Changes()
    (root / "src/file").touch()
    hear_until(watch, bell, "src")


def test_a_directory_swapped_under_its_path_is_watched_through_its_descriptor(bell: Bell, root: Path) -> None:
    """The watch is on what the scan opened, not on what has its name by then."""
    watch = InotifyWatch(str(root), bell.wake)
    watch.begin()
    with opened(root / "src") as fd:
        (root / "src").rename(root / "moved")
        (root / "src").symlink_to("zz")
        watch.cover("src", fd, Rules())
    (root / "zz/file").touch()
    (root / "moved/file").touch()
    assert hear(watch, bell).dirty == {"src"}
    assert watches(watch) == 1
    watch.close()


def test_one_directory_at_two_paths_leaves_a_doubt(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """A bind mount shows one inode twice, and no event says which path it was: only a full scan tells."""
    watch.begin()
    with opened(root / "src") as fd:
        watch.cover("src", fd, Rules())
        watch.cover("again", fd, Rules())
    watch.finish()
    (root / "src/file").touch()
    assert hear(watch, bell) == Changes(frozenset(), RescanReason.COARSE)


def test_covering_a_directory_twice_in_a_scan_takes_the_later_rules(
    watch: InotifyWatch, bell: Bell, root: Path
) -> None:
    """A scan covers before it knows the directory's own ignore files, and again with them."""
    watch.begin()
    for rules in (Rules(), Rules((".log",))):
        for path in ("src", "zz"):
            with opened(root / path) as fd:
                watch.cover(path, fd, rules)
    watch.finish()
    (root / "src/x.log").touch()
    assert last_word(watch, bell, root) == Changes()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: root.rename(root.with_name("elsewhere")),
        shutil.rmtree,
        lambda root: (root.rename(root.with_name("elsewhere")), root.mkdir()),
    ],
    ids=["moved", "removed", "replaced"],
)
def test_the_workspace_itself_going_is_a_doubt(
    change: Callable[[Path], object], watch: InotifyWatch, bell: Bell, root: Path
) -> None:
    """Its move, removal or replacement rings as such: events of what is in it no longer tell anything."""
    change(root)
    assert hear(watch, bell, lambda changes: changes.rescan_reason is RescanReason.ROOT)


def test_the_workspace_put_back_is_heard_and_watched(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """Its parent tells that it is back, at once; the scan that follows watches it as before."""
    root.rename(root.with_name("elsewhere"))
    hear(watch, bell, lambda changes: changes.rescan_reason is RescanReason.ROOT)
    with pytest.raises(FileNotFoundError):
        walk(watch, root)
    last_word(watch, bell, root.with_name("elsewhere"))
    root.with_name("elsewhere").rename(root)
    hear(watch, bell, lambda changes: changes.rescan_reason is RescanReason.ROOT)
    walk(watch, root)
    (root / "src/deep/file").touch()
    hear_until(watch, bell, "src/deep")


def test_the_workspace_moving_is_noticed_without_its_parent(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """The parent may be unreadable: the workspace's own watch tells too."""
    assert watch._inotify is not None
    watch._inotify.remove(watch._parent_wd)
    root.rename(root.with_name("elsewhere"))
    assert hear(watch, bell).rescan_reason is RescanReason.ROOT


def test_neighbours_of_the_workspace_do_not_ring(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """Of its parent's names only its own counts."""
    (root.parent / "neighbour").mkdir()
    (root.parent / "file").write_text("x")
    (root.parent / "file").unlink()
    assert last_word(watch, bell, root) == Changes()


def test_a_burst_rings_once(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """Until the hints are taken there is nothing new to say."""
    for number in range(300):
        (root / f"src/{number}").touch()
    (root / "zz/last").touch()
    assert bell.wait()
    while "zz" not in watch._change_queue._dirty:  # nothing rings any more to wait for
        threading.Event().wait(0.001)
    assert bell.rings == 1
    assert watch.take().dirty == {"src", "zz"}
    (root / "src/one more").touch()
    assert bell.wait()
    assert bell.rings == 2


def test_too_many_directories_become_a_doubt() -> None:
    """Naming them all costs more than a full scan: the list is bounded."""
    box = changes.ChangeQueue(lambda: None)
    for number in range(changes.DIRTY_AT_MOST):
        box.put({str(number)})
    assert box.take() == Changes(frozenset(map(str, range(changes.DIRTY_AT_MOST))))
    box.put(set(map(str, range(changes.DIRTY_AT_MOST + 1))))
    assert box.take() == Changes(frozenset(), RescanReason.FLOOD)


def test_too_many_written_files_are_not_named() -> None:
    """Their list is bounded, too; the directories that they are in are known all the same."""
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


def test_too_many_writes_by_names_that_are_gone_become_a_doubt() -> None:
    """The list of directories in which they were heard is bounded as well."""
    box = changes.ChangeQueue(lambda: None)
    box.put(unlinked=set(map(str, range(changes.DIRTY_AT_MOST + 1))))
    assert box.take() == Changes(frozenset(), RescanReason.FLOOD)


def test_the_gravest_doubt_is_kept() -> None:
    """A flood after the workspace moved does not hide that it moved."""
    box = changes.ChangeQueue(lambda: None)
    for rescan_reason in (RescanReason.COARSE, RescanReason.ROOT, RescanReason.FLOOD):
        box.put(rescan_reason=rescan_reason)
    assert box.take().rescan_reason is RescanReason.ROOT


def test_an_overflow_is_noticed_and_later_changes_still_heard(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """More events than the kernel keeps, while the reader is held: a doubt, and no deafness after it."""
    with open("/proc/sys/fs/inotify/max_queued_events") as file:
        most = int(file.read())
    if most > 100_000:
        pytest.skip(f"the kernel keeps {most} events, too many to fill in a test")
    with watch._lock:
        (root / "src/first").touch()
        for number in range(most):  # two names in turn, or the kernel would merge them
            os.chmod(root / "src/a.py", 0o600 + number % 2)
            os.chmod(root / "src/b.py", 0o600 + number % 2)
    hear(watch, bell, lambda heard: heard.rescan_reason is RescanReason.OVERFLOW)
    assert last_word(watch, bell, root).rescan_reason is None
    assert watch.alive()


def test_a_directory_above_the_workspace_goes_and_comes_back(bell: Bell, tmp_path: Path) -> None:
    """Nothing happens to the workspace itself, but its path is another's, or nobody's: a doubt, every time."""
    root = tmp_path / "far/near/work"
    root.mkdir(parents=True)
    watch = InotifyWatch(str(root), bell.wake)
    for number, name in enumerate(("far/near", "far", "far/near", "far")):
        walk(watch, root)
        assert kernel_watches(watch._inotify._inotify_fd) == 1 + len(root.parents) - 1  # type: ignore[union-attr]
        watch.take()
        aside = tmp_path / f"aside{number}"
        (tmp_path / name).rename(aside)
        assert hear(watch, bell).rescan_reason is RescanReason.ROOT
        if number % 2:
            root.mkdir(parents=True)
        else:
            aside.rename(tmp_path / name)
    watch.close()


def test_what_goes_on_above_the_workspace_rings_nothing(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """Neighbours come and go, in the same directory and further up."""
    for folder in (root.parent, root.parent.parent):
        (folder / "neighbour").mkdir()
        (folder / "neighbour").rmdir()
    assert last_word(watch, bell, root) == Changes()


class Failing(Rules):
    """Rules with a bug."""

    def decide(self, name: str, is_dir: bool) -> Ruling:
        raise ZeroDivisionError


def test_an_error_while_an_event_is_handled_is_a_doubt_not_deafness(
    watch: InotifyWatch, bell: Bell, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The reader outlives any bug in what it calls, and the scan makes good what was lost."""
    watch.begin()
    with opened(root / "src") as fd:
        watch.cover("src", fd, Failing())
    with opened(root / "zz") as fd:
        watch.cover("zz", fd, Rules())
    watch.finish()
    with caplog.at_level(logging.CRITICAL):
        (root / "src/new").touch()
        assert hear(watch, bell).rescan_reason is RescanReason.FAULT
        walk(watch, root)
    (root / "src/newer").touch()
    hear_until(watch, bell, "src")


def test_a_dead_reader_is_seen_and_the_next_scan_heals(
    watch: InotifyWatch, bell: Bell, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Deafness rings, shows in `alive()`, and ends with the next scan."""
    assert watch.alive()
    reader = watch._inotify
    assert reader is not None

    def broken(_events: object) -> None:
        raise ZeroDivisionError

    reader._deliver = broken
    with caplog.at_level(logging.CRITICAL):
        (root / "src/new").touch()
        assert hear(watch, bell).rescan_reason is RescanReason.DEAF
        reader.join()
    assert not watch.alive()
    assert watch.needs_polling
    walk(watch, root)
    assert watch.alive()
    assert not watch.needs_polling
    (root / "src/newer").touch()
    hear_until(watch, bell, "src")


def test_closing_leaves_no_thread_and_no_descriptor(bell: Bell, root: Path) -> None:
    """Whatever state it is in: never opened, open, scanned, closed before, dead."""
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    watch = InotifyWatch(str(root), bell.wake)
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


def test_a_closed_watch_can_be_opened_again(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """As after sleep, when everything is built anew."""
    watch.close()
    walk(watch, root)
    (root / "src/deep/file").touch()
    hear_until(watch, bell, "src/deep")


def test_a_directory_deeper_than_a_path_may_be_long_is_watched(bell: Bell, tmp_path: Path) -> None:
    """Watches go through descriptors, so PATH_MAX does not limit them."""
    watch = InotifyWatch(str(tmp_path), bell.wake)
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
    hear_until(watch, bell, path)
    os.close(fd)
    watch.close()
    shutil.rmtree(tmp_path / name)


def test_a_real_scan_covers_for_the_watch(watch: InotifyWatch, bell: Bell, root: Path) -> None:
    """The scanner's own walk and rules: what they leave out does not ring, the rest does."""
    (root / ".gitignore").write_text("*.log\n")
    (root / "src/.gitignore").write_text("!kept.log\n/deep/\n")
    scanner = Scanner(str(root), Selection(SelectionSettings()), watch)
    scanner.scan()
    last_word(watch, bell, root)
    assert watches(watch) == len(["", "src", "src/empty", "zz"])
    (root / "src/x.log").touch()
    (root / "src/deep/file").touch()
    assert last_word(watch, bell, root) == Changes()
    (root / "src/kept.log").touch()
    hear_until(watch, bell, "src")
