"""Tells a file system that gives a new folder the inode number of a removed one: ext4 does, tmpfs does not."""

from __future__ import annotations

import tempfile
from pathlib import Path

_TRIES = 50


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
