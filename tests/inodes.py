"""A directory recreated with the same inode number, on a file system that reuses numbers.

ext4 does, tmpfs does not: such a test is skipped if no folder is on a disk that does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_TRIES = 50
_FOLDERS = ("/var/tmp", "/tmp", os.path.expanduser("~"))


def make_anew(directory: Path, prepare: Callable[[], object] = lambda: None) -> None:
    """Remove the directory with all that is in it, and make another one of the same name and number.

    Someone else who makes a file at that instant gets the number: then it is done over again, so `prepare`, which is
    called before each try, is to see to it that the directory that is there is known. Skipped where none is reused.
    """
    if not _gives_numbers_again(directory.parent):
        pytest.skip("the file system here gives no inode number again")
    for _ in range(_TRIES):
        prepare()
        number = directory.stat().st_ino
        shutil.rmtree(directory)
        directory.mkdir()
        if directory.stat().st_ino == number:
            return
    pytest.skip("other programs are faster at taking inode numbers")


@contextmanager
def reusing(folder: Path) -> Iterator[Path]:
    """Return a folder on such a file system, this one or another, or skip the test."""
    if _gives_numbers_again(folder):
        yield folder
        return
    for other in map(Path, _FOLDERS):
        if _gives_numbers_again(other):
            with tempfile.TemporaryDirectory(dir=other) as place:
                yield Path(place)
            return
    pytest.skip("no file system here gives inode numbers again")


def _gives_numbers_again(folder: Path) -> bool:
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
