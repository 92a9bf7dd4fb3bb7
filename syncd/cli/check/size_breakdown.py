"""The largest files and folders of a snapshot, and counts of its entries that tell no name."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from syncd.scan.entry import Entry, Kind, content_bytes

# A folder is named as a whole unless one entry holds this share of it: then the entry is named.
DOMINANT_SHARE = 0.5
# Entries with a smaller share of all bytes are not named.
LEAST_SHARE = 0.01
_WILDCARDS = "*?[\\"
_SIZE_CLASSES = (
    "empty",
    "below 1 KiB",
    "below 10 KiB",
    "below 100 KiB",
    "below 1 MiB",
    "below 10 MiB",
    "below 100 MiB",
)
_LARGER = "100 MiB and more"


class PathSize(NamedTuple):
    """The size of a file or a whole folder, and its share of all bytes."""

    path: str
    is_dir: bool
    size_bytes: int
    share: float


class SizeBreakdown(Struct, frozen=True):
    """Counts of a snapshot's entries. `files_by_size` is by size class, `deepest` in path components."""

    files: int
    links: int
    directories: int
    content_bytes: int
    files_by_size: dict[str, int]
    deepest: int
    longest_name_bytes: int
    not_utf8: int


def heaviest(manifest: Mapping[str, Entry], count: int) -> list[PathSize]:
    """The largest files and folders, none within another, the largest first; at most `count`.

    A folder that one entry dominates is replaced by its entries, at any depth.
    """
    inside: dict[str, dict[str, int]] = {}
    total = 0
    for path, entry in manifest.items():
        if not entry.size_bytes:
            continue
        total += entry.size_bytes
        below = path
        while below:
            above = below.rpartition("/")[0]
            siblings = inside.setdefault(above, {})
            siblings[below] = siblings.get(below, 0) + entry.size_bytes
            below = above
    heap = [(-size, path) for path, size in inside.get("", {}).items()]
    heapq.heapify(heap)
    found: list[PathSize] = []
    while heap and len(found) < count:
        negative, path = heapq.heappop(heap)
        size, children = -negative, inside.get(path, {})
        if size < LEAST_SHARE * total:
            break
        if children and max(children.values()) >= DOMINANT_SHARE * size:
            for child, child_size in children.items():
                heapq.heappush(heap, (-child_size, child))
        else:
            found.append(PathSize(path, bool(children), size, size / total))
    return found


def ignore_line(path: str, is_dir: bool) -> str:
    """The line of an ignore file at the top of the workspace that leaves out this path, and hardly any other.

    Characters that a line of text cannot hold become one `?` for each byte.
    """
    line = "".join(
        f"\\{c}" if c in _WILDCARDS else c if c.isprintable() else "?" * len(c.encode("utf-8", "surrogateescape"))
        for c in path
    )
    if line.endswith(" ") and not is_dir:
        line = f"{line[:-1]}\\ "
    return f"/{line}/" if is_dir else f"/{line}"


def size_breakdown(manifest: Mapping[str, Entry]) -> SizeBreakdown:
    """Count the entries of a manifest."""
    kinds = Counter(entry.kind for entry in manifest.values())
    files_by_size = Counter(_size_class(entry.size_bytes) for entry in manifest.values() if entry.kind is Kind.FILE)
    names = [path.rpartition("/")[2].encode("utf-8", "surrogateescape") for path in manifest]
    return SizeBreakdown(
        files=kinds[Kind.FILE],
        links=kinds[Kind.SYMLINK],
        directories=kinds[Kind.DIRECTORY],
        content_bytes=content_bytes(manifest.values()),
        files_by_size={
            size_class: files_by_size[size_class]
            for size_class in (*_SIZE_CLASSES, _LARGER)
            if files_by_size[size_class]
        },
        deepest=max((path.count("/") + 1 for path in manifest), default=0),
        longest_name_bytes=max(map(len, names), default=0),
        not_utf8=sum(not path.isascii() and _is_not_utf8(path) for path in manifest),
    )


def _size_class(size_bytes: int) -> str:
    if not size_bytes:
        return _SIZE_CLASSES[0]
    limit = 1 << 10
    for size_class in _SIZE_CLASSES[1:]:
        if size_bytes < limit:
            return size_class
        limit = limit * 10 if size_class != "below 100 KiB" else 1 << 20
    return _LARGER


def _is_not_utf8(path: str) -> bool:
    return any(0xDC80 <= ord(c) <= 0xDCFF for c in path)
