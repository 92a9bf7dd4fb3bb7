"""The inotify watch on files that are open: mapped, closed, unlinked, or with several names."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from syncd.watch.inotify_watch import InotifyWatch
from tests.component.watch_rig import (
    write_through_mmap,
)


def test_a_file_written_through_a_mapping_is_reported_when_it_is_unmapped(watch: InotifyWatch, root: Path) -> None:
    """Closing the descriptor has no event while the mapping exists: the write is reported when it is unmapped."""
    with open(root / "src/a.py", "r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    assert watch.take().dirty == set()
    memory[0] = 0x21
    assert watch.take().dirty == set()
    memory.close()
    assert "src" in watch.take().dirty


def test_a_file_that_was_closed_is_named(watch: InotifyWatch, root: Path) -> None:
    """It may have been written through a mapping, which does not change its times."""
    write_through_mmap(root / "src")
    (root / "src/b.py").chmod(0o600)
    (root / "src/b.py").read_text()
    assert watch.take().written == {"src/a.py"}
    (root / "top").write_text("at the top")
    assert watch.take().written == {"top"}


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
