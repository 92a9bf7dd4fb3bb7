"""Paths that no archive can bring, since something of another kind has their place in the sandbox.

GNU tar does not put a file where a directory with something in it is, and nothing below what is no directory; it then
fails, whatever else the archive holds. So such a path, with all that is below it, is left out until its place is free.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256

from syncd.core.text import shown_path
from syncd.core.warning import SyncWarning
from syncd.sandbox.removal_plan import Versions, within
from syncd.scan.manifest import Entry, Kind, Manifest, replaced_entries

UNKNOWN = "?"
"""What hinders a path could not be seen."""

_THERE = {
    "d": "a directory has its place",
    "f": "a file has its place",
    "l": "a link has its place",
    "o": "something that is neither file nor directory has its place",
    "r": "its directory is read-only",
    UNKNOWN: "something of another kind may have its place",
}
_MOST_NAMED = 50


def kinds_changed(
    held: Iterable[Mapping[str, Entry]], wanted: Mapping[str, Entry], leftovers: Mapping[str, list[Entry]]
) -> bool:
    """Whether any wanted path may be there as of another kind. Nearly always not, and this is how that costs little."""
    for before in held:
        for path in replaced_entries(before, wanted) if before else ():
            old = before.get(path)
            if old is not None and old.kind is not wanted[path].kind:
                return True
    return any(old.kind is not wanted[path].kind for path in leftovers if path in wanted for old in leftovers[path])


def in_the_way(found: Versions, wanted: Mapping[str, Entry]) -> Versions:
    """Those of our versions that have a wanted path's place, as of another kind, or are below what is no folder."""
    return {path: entries for path, entries in found.items() if path in wanted or _below_no_folder(path, wanted)}


def _below_no_folder(path: str, wanted: Mapping[str, Entry]) -> bool:
    while path := path.rpartition("/")[0]:
        now = wanted.get(path)
        if now is not None:
            return now.kind is not Kind.DIRECTORY
    return False


def hindered(unmoved: Versions, wanted: Mapping[str, Entry]) -> set[str]:
    """The wanted paths whose place is not free, as these versions, or what became of them, are there still.

    Files and links replace one another; a directory replaces nothing, and nothing a directory.
    """
    return {
        path
        for path, entries in unmoved.items()
        if (now := wanted.get(path)) is not None
        and any(now.kind is not old.kind and Kind.DIRECTORY in (now.kind, old.kind) for old in entries)
    }


def within_of(manifest: Mapping[str, Entry], blocked: Collection[str]) -> Manifest:
    """The entries of these paths and of what is below them."""
    return {path: entry for path, entry in manifest.items() if within(path, blocked)} if blocked else {}


def without(manifest: Mapping[str, Entry], aside: Collection[str]) -> Manifest:
    """The other entries."""
    return {path: entry for path, entry in manifest.items() if path not in aside}


def mark(entries: Mapping[str, Entry]) -> bytes:
    """A digest that is another once someone changes one of them here."""
    rows = sorted((p, e.kind.value, e.mode, e.size_bytes, e.mtime_s, e.target) for p, e in entries.items())
    return sha256(repr(rows).encode()).digest()


def warnings(blocked: Mapping[str, str]) -> list[SyncWarning]:
    """The warnings about them."""
    paths: Iterable[str] = sorted(blocked)
    found = [_warning(path, blocked[path]) for path in list(paths)[:_MOST_NAMED]]
    more = len(blocked) - _MOST_NAMED
    if more > 0:
        what = f"{more:,} more paths are not sent, as their places in the sandbox are taken"
        found.append(SyncWarning("blocked", what, "mend those that are named, and run `syncd push --force`"))
    return found


def _warning(path: str, there: str) -> SyncWarning:
    what = f"{shown_path(path)!r} is not sent: in the sandbox {_THERE.get(there, _THERE[UNKNOWN])}"
    remedy = "make it writable there" if there == "r" else "move that away there, or rename it here"
    return SyncWarning(f"blocked:{path}", what, f"{remedy}; then run `syncd push --force`")
