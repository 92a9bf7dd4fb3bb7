"""The largest files and folders of a snapshot."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import NamedTuple

from syncd.model.entry import Entry

# A folder is named as a whole unless one entry holds this share of it: then the entry is named.
DOMINANT_SHARE = 0.5
# Entries with a smaller share of all bytes are not named.
LEAST_SHARE = 0.01
_WILDCARDS = "*?[\\"


class PathSize(NamedTuple):
    """The size of a file or a whole folder, and its share of all bytes."""

    path: str
    is_dir: bool
    size_bytes: int
    share: float


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
