"""A burst of changes: files created, written, closed and removed, four events each, and a last one as a mark."""

from __future__ import annotations

import os
import sys

EVENTS_A_FILE = 4
MARK = "mark"


def main(tree: str, events: int) -> None:
    """Cause so many events in the directories of the tree, then create one file in its directory `MARK`."""
    folders = sorted(item.path for item in os.scandir(tree) if item.is_dir() and item.name != MARK)
    for number in range(events // EVENTS_A_FILE):
        path = f"{folders[number % len(folders)]}/{number}"
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, b"x")
        os.close(descriptor)
        os.unlink(path)
    os.mkdir(f"{tree}/{MARK}/{MARK}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
