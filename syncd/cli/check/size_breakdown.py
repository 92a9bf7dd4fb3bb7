"""What a snapshot holds, by weight: what to leave out to make it smaller, and its shape without any name."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from syncd.scan.manifest import Entry, Kind, content_bytes

# A folder is told as a whole unless one thing in it is most of it: then that is what a person is after.
MOST = 0.5
# Less than this share of everything is not worth a person's time.
LEAST_SHARE = 0.01
_ACTIVE = "*?[\\"
_ORDERS = ("empty", "below 1 KiB", "below 10 KiB", "below 100 KiB", "below 1 MiB", "below 10 MiB", "below 100 MiB")
_LARGER = "100 MiB and more"


class PathSize(NamedTuple):
    """A file or a whole folder, with its share of all bytes."""

    path: str
    is_dir: bool
    size_bytes: int
    share: float


@dataclass(frozen=True)
class SizeBreakdown:
    """Counts alone. `deepest` is in path components, `files_by_size` counts files by size."""

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

    A folder in which one thing is most of it is taken apart, however deep that thing lies.
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
        if children and max(children.values()) >= MOST * size:
            for child, child_size in children.items():
                heapq.heappush(heap, (-child_size, child))
        else:
            found.append(PathSize(path, bool(children), size, size / total))
    return found


def ignore_line(path: str, is_dir: bool) -> str:
    """The line of an ignore file at the workspace's top that leaves out this path, and hardly any other.

    What a line of text cannot hold is a `?` for each of its bytes.
    """
    line = "".join(
        f"\\{c}" if c in _ACTIVE else c if c.isprintable() else "?" * len(c.encode("utf-8", "surrogateescape"))
        for c in path
    )
    if line.endswith(" ") and not is_dir:
        line = f"{line[:-1]}\\ "
    return f"/{line}/" if is_dir else f"/{line}"


def size_breakdown(manifest: Mapping[str, Entry]) -> SizeBreakdown:
    """Count."""
    kinds = Counter(entry.kind for entry in manifest.values())
    files_by_size = Counter(_order(entry.size_bytes) for entry in manifest.values() if entry.kind is Kind.FILE)
    names = [path.rpartition("/")[2].encode("utf-8", "surrogateescape") for path in manifest]
    return SizeBreakdown(
        files=kinds[Kind.FILE],
        links=kinds[Kind.SYMLINK],
        directories=kinds[Kind.DIRECTORY],
        content_bytes=content_bytes(manifest.values()),
        files_by_size={order: files_by_size[order] for order in (*_ORDERS, _LARGER) if files_by_size[order]},
        deepest=max((path.count("/") + 1 for path in manifest), default=0),
        longest_name_bytes=max(map(len, names), default=0),
        not_utf8=sum(not path.isascii() and _is_odd(path) for path in manifest),
    )


def _order(size_bytes: int) -> str:
    if not size_bytes:
        return _ORDERS[0]
    limit = 1 << 10
    for order in _ORDERS[1:]:
        if size_bytes < limit:
            return order
        limit = limit * 10 if order != "below 100 KiB" else 1 << 20
    return _LARGER


def _is_odd(path: str) -> bool:
    return any(0xDC80 <= ord(c) <= 0xDCFF for c in path)
