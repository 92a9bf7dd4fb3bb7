"""A directory recreated with the same inode number, on a file system that reuses numbers.

ext4 does, tmpfs does not: such a test is skipped if no folder is on a disk that does.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

_TRIES = 50


def recreate(directory: Path, prepare: Callable[[], object] = lambda: None) -> None:
    """Remove the directory with its content, and create another one with the same name and inode number.

    Another program that creates a file at that instant may get the number; then it is tried again. `prepare` is called
    before each try, so that the test can examine the directory first. Skips the test if no number is reused.
    """
    if not reuses_inode_numbers(directory.parent):
        pytest.skip("this file system does not reuse inode numbers")
    for _ in range(_TRIES):
        prepare()
        number = directory.stat().st_ino
        shutil.rmtree(directory)
        directory.mkdir()
        if directory.stat().st_ino == number:
            return
    pytest.skip("other programs took the inode number each time")


def reuses_inode_numbers(folder: Path) -> bool:
    """True if the file system gives a new folder the inode number of a removed one."""
    try:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            probe = Path(place, "probe")
            numbers = []
            for _ in range(_TRIES):
                probe.mkdir()
                numbers.append(probe.stat().st_ino)
                probe.rmdir()
    except OSError:
        return False
    return len(set(numbers)) <= len(numbers) // 2
