"""What is to be removed in the sandbox: paths that were uploaded and are gone at home, and nothing else.

A path whose kind changed counts as gone too: an extractor cannot put a file in a directory's place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from types import MappingProxyType

from syncd.scan.manifest import Entry


class Deletions(Enum):
    """What is done about files that are in the sandbox and gone at home: `sandbox.deletions`."""

    KEEP = "keep"
    MIRROR = "mirror"
    RESET = "reset"


Versions = dict[str, list[Entry]]
"""Paths with each entry of ours that may be there."""


def paths_to_delete(
    held: Iterable[Mapping[str, Entry]],
    wanted: Mapping[str, Entry],
    unread: Collection[str],
    leftovers: Mapping[str, list[Entry]] = MappingProxyType({}),
) -> Versions:
    """What is to go of what the sandbox holds, or may hold, of ours; what is in a directory before it.

    `held` are manifests of which each may be there, in part or whole. `unread` are paths at home that could not be
    looked into: nothing is known of them and what is below. `leftovers` was left there before.
    """
    found: Versions = {}
    for path, entries in leftovers.items():
        now = wanted.get(path)
        gone = [entry for entry in entries if now is None or now.kind is not entry.kind]
        if gone:
            found[path] = gone
    for manifest in held:
        for path, entry in manifest.items():
            now = wanted.get(path)
            if now is None or now.kind is not entry.kind:
                found.setdefault(path, []).append(entry)
    paths = sorted((path for path in found if not within(path, unread)), reverse=True)
    return {path: found[path] for path in paths}


def within(path: str, unread: Collection[str]) -> bool:
    """Whether the path is one of these, or below one."""
    while path and unread:
        if path in unread:
            return True
        path = path.rpartition("/")[0]
    return False
