"""Whether a scan shows a workspace at work, or one that vanished: a disaster at home is not mirrored."""

from __future__ import annotations

# Below this many files a workspace may be emptied like any other change.
SMALL_FILES = 20
# Fewer than one file in this many left is no ordinary day's work.
LEFT_ONE_IN = 10


def lost_nearly_all(files_before: int, files_now: int) -> bool:
    """Of `SMALL_FILES` and more, fewer than a tenth are left."""
    return files_before >= SMALL_FILES and files_now * LEFT_ONE_IN < files_before
