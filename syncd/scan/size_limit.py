"""What is too large: a snapshot is refused before anything is read, with what is big in it; a path stays home."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from syncd.scan.manifest import Entry, content_bytes

_MIB = 1 << 20
# The kernel takes no path of 4,096 bytes or more (PATH_MAX in linux/limits.h), and extractors hand it whole paths: one
# file deeper than that made a sandbox refuse all others with it. The rest is for the folder that it extracts into.
LONGEST_PATH_BYTES = 4096 - 256


def largest(manifest: Mapping[str, Entry], count: int) -> list[tuple[str, int]]:
    """The paths of the largest files with their sizes in bytes, the largest first."""
    sizes = ((entry.size_bytes, path) for path, entry in manifest.items() if entry.size_bytes)
    return [(path, size) for size, path in heapq.nlargest(count, sizes)]


def over_limit(manifest: Mapping[str, Entry], max_mib: int) -> str | None:
    """Why the snapshot is refused, or None: the files' sizes are counted as they lie on disk, before compression."""
    total = content_bytes(manifest.values())
    if total <= max_mib * _MIB:
        return None
    big = ", ".join(f"{path!r} ({mib(size)})" for path, size in largest(manifest, 3))
    return f"the snapshot holds {mib(total)}, more than sync.max_snapshot_mib = {max_mib}; the largest: {big}"


def too_long(path: str) -> bool:
    """Whether hardly any program could make this path, relative to the workspace, over there."""
    if len(path) * 4 <= LONGEST_PATH_BYTES:
        return False
    return len(path.encode("utf-8", "surrogateescape")) > LONGEST_PATH_BYTES


def mib(size_bytes: int) -> str:
    """A size for people, in MiB."""
    return f"{size_bytes / _MIB:,.1f} MiB"
