"""The inotify watch: relevant changes are reported, others are not, and lost events cause a full scan."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from syncd.core.clock import SystemClock
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection
from syncd.watch.changes import Changes
from syncd.watch.inotify_watch import InotifyWatch, unwatched
from tests.component.limits import descriptors_left


def walk(watch: InotifyWatch, root: Path, *ignore: str) -> None:
    """Scan all, under these patterns."""
    Scanner(str(root), Selection(ignore=ignore), watch).scan()


@contextmanager
def opened(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def kernel_watches(fd: int) -> int:
    """Return the number of watches of an inotify descriptor (proc(5), fdinfo)."""
    with open(f"/proc/self/fdinfo/{fd}") as info:
        return sum(line.startswith("inotify wd:") for line in info)


def watches(watch: InotifyWatch) -> int:
    """Return the kernel's count without the watches on the directories above the workspace."""
    return kernel_watches(watch._inotify.filenos()[0]) - len(watch._outside)


def write_through_mmap(src: Path) -> None:
    with open(src / "a.py", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = 0x21


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
def watch(root: Path) -> Iterator[InotifyWatch]:
    watch = InotifyWatch(str(root), SystemClock())
    watch.open()
    walk(watch, root)
    yield watch
    watch.close()


def write(src: Path, mode: str) -> None:
    with open(src / "a.py", mode) as file:
        file.write(b"more")


def replace(src: Path) -> None:
    (src / "a.py.new").write_text("new")
    os.replace(src / "a.py.new", src / "a.py")


CHANGES: dict[str, Callable[[Path], object]] = {
    "create": lambda src: (src / "new").touch(),
    "append": lambda src: write(src, "ab"),
    "write in place": lambda src: write(src, "r+b"),
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
    change: Callable[[Path], object], watch: InotifyWatch, root: Path
) -> None:
    """Every change of a snapshot's content wakes the loop, and names its directory."""
    change(root / "src")
    received = watch.take()
    assert "src" in received.dirty
    assert received.dirty - {"src", "src/empty"} == set()
    assert not received.rescan


def test_changes_between_watching_and_listing_are_reported(root: Path) -> None:
    """A change after a directory was added is reported, even if the listing that follows includes it."""
    watch = InotifyWatch(str(root), SystemClock())
    watch.begin()
    with opened(root / "src") as fd:
        watch.add_directory("src", fd, Selection().root())
        (root / "src/new").touch()
        assert watch.take().dirty == {"src"}
    watch.close()


def test_reading_causes_no_events(watch: InotifyWatch, root: Path) -> None:
    """The daemon's own scan and packaging (listing, opening, reading, adding again) cause no events."""
    walk(watch, root)
    for folder, _, names in os.walk(root):
        for name in names:
            (Path(folder) / name).read_bytes()
            os.stat(Path(folder) / name)
    walk(watch, root)
    assert watch.take() == Changes()


def test_an_ignored_file_renamed_to_an_included_name_wakes(watch: InotifyWatch, root: Path) -> None:
    """Editors write a temporary file and rename it: only the second name is relevant."""
    walk(watch, root, "*.tmp")
    (root / "src/a.tmp").write_text("new")
    assert watch.take() == Changes()
    os.replace(root / "src/a.tmp", root / "src/a.py")
    assert "src" in watch.take().dirty


@pytest.mark.parametrize("name", [".gitignore", ".syncdignore"])
def test_ignore_files_wake_even_if_ignored(name: str, watch: InotifyWatch, root: Path) -> None:
    """They decide which other paths are included."""
    walk(watch, root, "*ignore")
    (root / "src" / name).write_text("*.o")
    assert "src" in watch.take().dirty


def test_a_removed_directory_is_named(watch: InotifyWatch, root: Path) -> None:
    """Its parent is named too: another directory may have its name, and its inode number, by the next scan."""
    (root / "src/deep/low").mkdir()
    walk(watch, root)
    watch.take()
    shutil.rmtree(root / "src/deep")
    assert watch.take().dirty == {"src", "src/deep", "src/deep/low"}


def test_a_directory_is_watched_by_its_descriptor(root: Path) -> None:
    """The watch is on the directory that the scan opened, not on one that has its name later."""
    watch = InotifyWatch(str(root), SystemClock())
    watch.begin()
    with opened(root / "src") as fd:
        (root / "src").rename(root / "moved")
        (root / "src").symlink_to("zz")
        watch.add_directory("src", fd, Selection().root())
    (root / "zz/file").touch()
    assert watch.take() == Changes()
    (root / "moved/file").touch()
    assert watch.take().dirty == {"src"}
    assert watches(watch) == 1
    watch.close()


def _broken_rules(root: Path, watch: InotifyWatch) -> None:
    """A bug in the rules."""
    with opened(root / "src") as fd:
        watch.add_directory("src", fd, Mock(decide=Mock(side_effect=ZeroDivisionError)))
    (root / "src/new").touch()


def _closed_descriptor(_: Path, watch: InotifyWatch) -> None:
    (descriptor,) = watch._inotify.filenos()
    os.dup2(os.open("/", os.O_RDONLY | os.O_DIRECTORY), descriptor)


@pytest.mark.parametrize("failure", [_broken_rules, _closed_descriptor])
def test_events_that_cannot_be_read(
    failure: Callable[[Path, InotifyWatch], None], watch: InotifyWatch, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full scan is needed, which watches everything again; until then the workspace is polled."""
    with caplog.at_level(logging.CRITICAL):
        failure(root, watch)
        assert watch.take() == Changes(rescan=True)
    assert watch.filenos() == []
    assert watch.needs_polling
    walk(watch, root)
    assert not watch.needs_polling
    (root / "src/newer").touch()
    assert "src" in watch.take().dirty


def test_a_new_directory_tells_when_it_changed(root: Path, watch: InotifyWatch) -> None:
    """The last change to what no event told of, before a scan found it; what was watched before tells nothing."""
    clock = SystemClock()
    started_s = clock.monotonic_s()
    assert watch.found_s <= started_s  # of the first walk
    watch.found_s = 0.0
    (root / "src/late.py").write_text("late")
    walk(watch, root)
    assert watch.found_s == 0.0
    (root / "new").mkdir()
    (root / "new/file").write_text("new")
    walk(watch, root)
    assert started_s - 1.0 < watch.found_s <= clock.monotonic_s()


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


def test_too_many_open_files_is_not_too_many_instances(root: Path) -> None:
    """Both are EMFILE, with different remedies."""
    watch = InotifyWatch(str(root), SystemClock())
    with descriptors_left(0):
        watch.open()
        assert ["ulimit -n" in str(warning) for warning in watch.warnings()] == [True]
    watch.open()
    assert watch.warnings() == ()
    watch.close()


def test_the_remedy_for_a_folder_of_any_name() -> None:
    """The command can be pasted, whatever the name would have a shell or a terminal do."""
    (warning,) = unwatched({"a; rm -rf ~\n\x1b[0m": errno.EACCES}, 1)
    assert warning.remedy == "run `chmod u+rx 'a; rm -rf ~\\n\\x1b[0m'` in the workspace"
    assert str(warning).isprintable()
