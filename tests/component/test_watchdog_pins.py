"""The behaviour of watchdog's internal class `InotifyFD` that `syncd/watch/inotify.py` needs."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import select
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyConstants as In
from watchdog.observers.inotify_c import InotifyFD, inotify_add_watch, inotify_rm_watch

from syncd.watch.inotify import CHANGES, Inotify


@pytest.fixture
def reader() -> Iterator[InotifyFD]:
    """An instance whose thread is not started."""
    reader = InotifyFD()
    yield reader
    for fd in (reader._inotify_fd, reader._kill_r, reader._kill_w):
        os.close(fd)


def test_the_version_is_the_pinned_one() -> None:
    """The internals may change with any minor version."""
    assert re.fullmatch(r"7\.1\.\d+", version("watchdog"))


def test_the_masks_are_the_kernels() -> None:
    """They are as in <sys/inotify.h>."""
    assert (In.IN_MODIFY, In.IN_ATTRIB, In.IN_CLOSE_WRITE, In.IN_MOVED_FROM, In.IN_MOVED_TO) == (2, 4, 8, 64, 128)
    assert (In.IN_CREATE, In.IN_DELETE, In.IN_DELETE_SELF, In.IN_MOVE_SELF) == (256, 512, 1024, 2048)
    assert (In.IN_UNMOUNT, In.IN_Q_OVERFLOW, In.IN_IGNORED) == (0x2000, 0x4000, 0x8000)
    assert (In.IN_ONLYDIR, In.IN_DONT_FOLLOW, In.IN_EXCL_UNLINK, In.IN_ISDIR) == (1 << 24, 1 << 25, 1 << 26, 1 << 30)
    assert not CHANGES & (In.IN_OPEN | In.IN_ACCESS | In.IN_CLOSE_NOWRITE)


def test_adding_a_directory_again_gives_the_same_descriptor(reader: InotifyFD, tmp_path: Path) -> None:
    """The descriptor belongs to the inode, whatever path leads to it."""
    (tmp_path / "a").mkdir()
    first = inotify_add_watch(reader._inotify_fd, bytes(tmp_path / "a"), In.IN_CREATE)
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "a").mkdir()
    assert inotify_add_watch(reader._inotify_fd, bytes(tmp_path / "b"), In.IN_CREATE) == first
    assert inotify_add_watch(reader._inotify_fd, bytes(tmp_path / "a"), In.IN_CREATE) != first


def test_failing_functions_return_minus_one_and_keep_errno(reader: InotifyFD, tmp_path: Path) -> None:
    """They do not raise by themselves."""
    assert inotify_add_watch(reader._inotify_fd, bytes(tmp_path / "missing"), In.IN_CREATE) == -1
    assert ctypes.get_errno() == errno.ENOENT
    assert inotify_rm_watch(reader._inotify_fd, 99) == -1  # type: ignore[arg-type]
    assert ctypes.get_errno() == errno.EINVAL


def test_a_read_gives_whole_events_and_parsing_their_bytes(reader: InotifyFD, tmp_path: Path) -> None:
    """Events of watches that `InotifyFD` does not know are included; names are bytes without padding."""
    wd = inotify_add_watch(reader._inotify_fd, bytes(tmp_path), In.IN_CREATE)
    (tmp_path / "name").touch()
    (Path(os.fsdecode(bytes(tmp_path) + b"/\xff"))).mkdir()
    events = list(InotifyFD._parse_event_buffer(reader._read_event_buffer(4096)))
    assert events == [(wd, In.IN_CREATE, 0, b"name"), (wd, In.IN_CREATE | In.IN_ISDIR, 0, b"\xff")]


def test_an_overflow_has_no_watch_descriptor() -> None:
    """An overflow is an event of its own."""
    parsed = list(InotifyFD._parse_event_buffer(b"\xff\xff\xff\xff" + (0x4000).to_bytes(4, "little") + bytes(8)))
    assert parsed == [(-1, In.IN_Q_OVERFLOW, 0, b"")]


def test_its_pipe_and_descriptor_are_what_is_closed(reader: InotifyFD) -> None:
    """`shut_down()` closes these three where no thread does."""
    for fd in (reader._inotify_fd, reader._kill_r, reader._kill_w):
        os.fstat(fd)


def test_closing_before_the_thread_ran_leaves_the_descriptors_open() -> None:
    """The reason for `shut_down()`: `close()` leaves the closing to a reader that does not run."""
    reader = InotifyFD()
    reader.stop()
    assert reader._is_reading
    for fd in (reader._inotify_fd, reader._kill_r, reader._kill_w):
        os.close(fd)  # would fail if it were closed


def test_the_descriptor_is_inherited_by_default(reader: InotifyFD) -> None:
    """The reason for `_create_inotify_fd`: a program that is started would otherwise inherit all watches."""
    assert os.get_inheritable(reader._inotify_fd)
    ours = Inotify(lambda _events: None, lambda: None)
    assert not os.get_inheritable(ours._inotify_fd)
    ours.shut_down()


def test_a_bad_descriptor_reads_as_empty(reader: InotifyFD) -> None:
    """The reason for `run()`: watchdog's own loop would repeat the read for ever."""
    kept = os.dup(reader._inotify_fd)
    os.close(reader._inotify_fd)
    assert reader._read_event_buffer(4096) == b""
    os.dup2(kept, reader._inotify_fd)
    os.close(kept)


def test_stop_wakes_a_reader_that_waits_and_closes_all() -> None:
    """A blocked read ends at once, and the three descriptors are closed."""
    lost = threading.Event()
    reader = Inotify(lambda _events: None, lost.set)
    reader.start()
    fds = (reader._inotify_fd, reader._kill_r, reader._kill_w)
    reader.stop()
    reader.join(5)
    assert not reader.is_alive()
    assert not lost.is_set()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_an_instance_without_a_thread_is_closed_by_shut() -> None:
    """This is so after a failed start; closing twice does nothing more."""
    before = os.listdir("/proc/self/fd")
    reader = Inotify(lambda _events: None, lambda: None)
    reader.shut_down()
    reader.shut_down()
    assert os.listdir("/proc/self/fd") == before


def test_the_thread_waits_in_poll_and_not_in_a_loop(tmp_path: Path) -> None:
    """An idle reader is a daemon thread blocked on its descriptor."""
    read_fd, write_fd = os.pipe()
    reader = Inotify(lambda events: (list(events), os.write(write_fd, b"!"))[0] and None, lambda: None)
    reader.add(bytes(tmp_path), CHANGES)
    assert reader.daemon
    reader.start()
    (tmp_path / "file").touch()
    assert select.select([read_fd], [], [], 5)[0]
    reader.shut_down()
    os.close(read_fd)
    os.close(write_fd)
