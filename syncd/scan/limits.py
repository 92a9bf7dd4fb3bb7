"""The limits on size: a larger snapshot is refused before its files are read, and longer paths are left out."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from syncd.model.entry import Entry
from syncd.model.manifest import Manifest

_MIB = 1 << 20
# The kernel accepts no path of 4,096 bytes or more (PATH_MAX in linux/limits.h), and extractors use whole paths: one
# file with a longer path made a sandbox refuse the whole archive. The rest is for the folder that it extracts into.
LONGEST_PATH_BYTES = 4096 - 256


def largest(manifest: Mapping[str, Entry], count: int) -> list[tuple[str, int]]:
    """Return the paths of the largest files with their sizes in bytes, the largest first."""
    sizes = ((entry.size_bytes, path) for path, entry in manifest.items() if entry.size_bytes)
    return [(path, size) for size, path in heapq.nlargest(count, sizes)]


def over_limit(manifest: Manifest, max_mib: int) -> str | None:
    """Return the reason why the snapshot is refused, or None. The files' sizes count before compression."""
    total = manifest.content_bytes
    if total <= max_mib * _MIB:
        return None
    big = ", ".join(f"{path!r} ({mib(size)})" for path, size in largest(manifest, 3))
    return f"the snapshot holds {mib(total)}, more than sync.max_snapshot_mib = {max_mib}; the largest: {big}"


def too_long(path: str) -> bool:
    """True if most programs could not create this path, relative to the workspace, in the sandbox."""
    if len(path) * 4 <= LONGEST_PATH_BYTES:
        return False
    return len(path.encode("utf-8", "surrogateescape")) > LONGEST_PATH_BYTES


def mib(size_bytes: int) -> str:
    """Format a size in MiB."""
    return f"{size_bytes / _MIB:,.1f} MiB"
