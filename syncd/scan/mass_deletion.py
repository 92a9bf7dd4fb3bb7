"""Whether a scan shows a workspace at work, or one that vanished: a disaster at home is not mirrored.

A directory that was emptied, by a program or because its disk is no longer mounted, holds next to nothing. One that
another took the place of may hold as much as ever: there it counts whether these are the files that were there before.
In the same directory it does not, since a checkout of an unrelated branch is a day's work like any other.
"""

from __future__ import annotations

from collections.abc import Mapping

from syncd.scan.manifest import Entry, Kind

# Below this many files a workspace may be emptied like any other change.
SMALL_FILES = 20
# Fewer than one file in this many left is no ordinary day's work.
LEFT_ONE_IN = 10


def lost_nearly_all(files_before: int, files_now: int) -> bool:
    """Of `SMALL_FILES` and more, fewer than a tenth are left."""
    return files_before >= SMALL_FILES and files_now * LEFT_ONE_IN < files_before


def is_replaced(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> bool:
    """Whether what stands in the place of a workspace of `SMALL_FILES` and more holds fewer than a tenth of its names.

    A smaller one that is removed and made anew is a person who starts over.
    """
    files = [path for path, entry in before.items() if entry.kind is not Kind.DIRECTORY]
    if len(files) < SMALL_FILES:
        return False
    left = sum(path in now and now[path].kind is not Kind.DIRECTORY for path in files)
    return left * LEFT_ONE_IN < len(files)
