"""Rules for blocked paths: no archive can create them, since something of another kind has their place in the sandbox.

GNU tar puts no file in the place of a directory that is not empty, and nothing below a path that is no directory; it
then fails, whatever else the archive holds. So such a path, with all below it, is withheld until its place is free.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256

from syncd.core.text import MOST_NAMED, shown_path
from syncd.core.warning import SyncWarning
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest, is_within, replaced_entries
from syncd.sandbox.leftovers import Versions
from syncd.sandbox.look_request import Obstacle

_REASONS = {
    Obstacle.DIRECTORY: "a directory has its place",
    Obstacle.FILE: "a file has its place",
    Obstacle.COMMITS: "a git repository with commits of the agent's may have its place",
    Obstacle.SYMLINK: "a link has its place",
    Obstacle.OTHER: "something that is neither file nor directory has its place",
    Obstacle.READ_ONLY: "its directory is read-only",
    Obstacle.LINK_ON_ITS_WAY: "a link has the place of a path that it leads through",
    Obstacle.UNKNOWN: "something of another kind may have its place",
}
_REMEDIES = {
    Obstacle.COMMITS: "bring them home (`syncd log`, `syncd apply --branch NAME`)",
    Obstacle.READ_ONLY: "make it writable there",
}


def kinds_changed(
    held: Iterable[Mapping[str, Entry]], wanted: Mapping[str, Entry], leftovers: Mapping[str, list[Entry]]
) -> bool:
    """True if any wanted path may be there with another kind; a cheap test, as it is nearly always False."""
    for before in held:
        for path in replaced_entries(before, wanted) if before else ():
            old = before.get(path)
            if old is not None and old.kind is not wanted[path].kind:
                return True
    return any(old.kind is not wanted[path].kind for path in leftovers if path in wanted for old in leftovers[path])


def obstructing(found: Versions, wanted: Mapping[str, Entry]) -> Versions:
    """Return the versions that have a wanted path's place, or are below a wanted path that is no directory."""
    return {path: entries for path, entries in found.items() if path in wanted or _below_non_directory(path, wanted)}


def _below_non_directory(path: str, wanted: Mapping[str, Entry]) -> bool:
    while path := path.rpartition("/")[0]:
        now = wanted.get(path)
        if now is not None:
            return now.kind is not Kind.DIRECTORY
    return False


def blocked_by(unmoved: Versions, wanted: Mapping[str, Entry]) -> set[str]:
    """Return the wanted paths whose place is not free while these versions, changed or not, are still there.

    Files and links replace one another; a directory replaces nothing, and nothing replaces a directory.
    """
    return {
        path
        for path, entries in unmoved.items()
        if (now := wanted.get(path)) is not None
        and any(now.kind is not old.kind and Kind.DIRECTORY in (now.kind, old.kind) for old in entries)
    }


def entries_within(manifest: Manifest, blocked: Collection[str]) -> dict[str, Entry]:
    """Return the entries of these paths and of all below them."""
    return {path: manifest[path] for path in manifest.paths_within(blocked)}


def links_through(manifest: Mapping[str, Entry], links: Collection[str]) -> list[str]:
    """Return the symlinks that lead through one of these paths, which are links of someone else in the sandbox.

    An extractor that follows them may refuse the archive, as they can lead out of the workspace.
    """
    symlinks = {path: entry for path, entry in manifest.items() if entry.kind is Kind.SYMLINK} if links else {}
    targets = {path: posixpath.join(posixpath.dirname(path), entry.target) for path, entry in symlinks.items()}
    return [path for path in targets if path not in links and is_within(posixpath.normpath(targets[path]), links)]


def without(manifest: Manifest, withheld: Iterable[str]) -> Manifest:
    """Return the manifest without the withheld entries."""
    left = manifest.copy()
    for path in withheld:
        left.pop(path, None)
    return left


def fingerprint(entries: Mapping[str, Entry]) -> bytes:
    """Return a digest that differs once one of the entries is changed."""
    rows = sorted((p, e.kind.value, e.mode, e.size_bytes, e.mtime_s, e.target) for p, e in entries.items())
    return sha256(repr(rows).encode()).digest()


def warnings(blocked: Mapping[str, Obstacle]) -> list[SyncWarning]:
    """Return the warnings about blocked paths."""
    found = [_warning(path, blocked[path]) for path in sorted(blocked)[:MOST_NAMED]]
    more = len(blocked) - MOST_NAMED
    if more > 0:
        what = f"{more:,} more paths are not sent, as their places in the sandbox are taken"
        found.append(
            SyncWarning("blocked", what, "free the places of those that are named, then run `syncd push --force`")
        )
    return found


def _warning(path: str, obstacle: Obstacle) -> SyncWarning:
    reason = _REASONS[obstacle]
    what = f"{shown_path(path)!r} is not sent: in the sandbox {reason}"
    remedy = _REMEDIES.get(obstacle, "move that away there, or rename it here")
    return SyncWarning(f"blocked:{path}", what, f"{remedy}; then run `syncd push --force`")
