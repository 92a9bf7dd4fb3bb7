"""What is to be removed in the sandbox: paths that were uploaded and are gone at home, and nothing else.

A path whose kind changed counts as gone too: an extractor cannot put a file in a directory's place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum

from syncd.policy.manifest import Entry, Manifest


class Deletions(Enum):
    """What is done about files that are in the sandbox and gone at home: `sandbox.deletions`."""

    KEEP = "keep"
    MIRROR = "mirror"
    RESET = "reset"


def doomed(held: Mapping[str, Entry], wanted: Mapping[str, Entry], unread: Collection[str]) -> Manifest:
    """The entries of `held`, what the sandbox holds of ours, that are to go; what is in a directory before it.

    `unread` are paths at home that could not be looked into: nothing is known of them and what is below.
    """
    gone = [
        path
        for path, entry in held.items()
        if ((now := wanted.get(path)) is None or now.kind is not entry.kind) and not _within(path, unread)
    ]
    gone.sort(key=_depth, reverse=True)
    return {path: held[path] for path in gone}


def _depth(path: str) -> int:
    return path.count("/")


def _within(path: str, unread: Collection[str]) -> bool:
    if not unread:
        return False
    parts = path.split("/")
    return any("/".join(parts[:count]) in unread for count in range(1, len(parts) + 1))
