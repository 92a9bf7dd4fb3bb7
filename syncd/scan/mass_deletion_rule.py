"""The rules that recognise a mass deletion: a workspace that lost nearly all files, or was replaced by another one.

A directory that was emptied, by a program or because its disk is not mounted, holds next to nothing. Another directory
in the workspace's place may hold many files, so the names of the earlier files are compared. In the same directory they
are not, as a checkout of an unrelated branch is ordinary work.
"""

from __future__ import annotations

from collections.abc import Mapping

from syncd.model.entry import Entry, Kind

# With fewer files, emptying the workspace is a change like any other.
SMALL_FILES = 20
# With fewer than one file in so many left, a larger workspace counts as lost.
LEFT_ONE_IN = 10


def lost_nearly_all(files_before: int, files_now: int) -> bool:
    """True if there were at least `SMALL_FILES` files, and fewer than a tenth are left."""
    return files_before >= SMALL_FILES and files_now * LEFT_ONE_IN < files_before


def is_replaced(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> bool:
    """True if the workspace had at least `SMALL_FILES` files, and fewer than a tenth of their names are left.

    A smaller workspace may be deleted and created again.
    """
    files = [path for path, entry in before.items() if entry.kind is not Kind.DIRECTORY]
    if len(files) < SMALL_FILES:
        return False
    left = sum(path in now and now[path].kind is not Kind.DIRECTORY for path in files)
    return left * LEFT_ONE_IN < len(files)
