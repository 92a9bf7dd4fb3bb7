"""What a scan remembers of each directory, so that the next one need only look where something happened.

A `Tree` is all listings of a workspace by path. The manifest is put together from it; a directory that was looked at
again replaces its listing, and what is no longer in it takes everything below along.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from syncd.base.problem import Problem
from syncd.policy.manifest import Entry, Kind, Manifest
from syncd.policy.selection import Scope


@dataclass
class Listing:
    """One directory as it was listed. `outer` is its scope before its own ignore files, whose contents are `rules`."""

    identity: tuple[int, int]
    outer: Scope
    scope: Scope
    rules: Mapping[str, bytes]
    entries: dict[str, Entry] = field(default_factory=dict)
    directories: dict[str, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    links: int = 0  # symlinks, left out or not: where they lead is decided elsewhere
    # Inodes of files with other names too: written by one of those, their own directory brings no event.
    shared: set[tuple[int, int]] = field(default_factory=set)


class Tree:
    """The listings of one workspace."""

    def __init__(self) -> None:
        self.listings: dict[str, Listing] = {}

    def manifest(self) -> Manifest:
        """All entries in the archive's order: by name within a directory, a directory before what is in it."""
        manifest: Manifest = {}
        # A stack, not recursion: a workspace may be nested deeper than Python calls may be.
        stack = [iter(self.listings[""].entries.items())]
        while stack:
            for path, entry in stack[-1]:
                manifest[path] = entry
                if entry.kind is Kind.DIRECTORY:
                    below = self.listings.get(path)
                    if below is not None:
                        stack.append(iter(below.entries.items()))
                        break
            else:
                stack.pop()
        return manifest

    def drop(self, path: str) -> None:
        """Forget a directory and all below it."""
        doomed = [path]
        while doomed:
            listing = self.listings.pop(doomed.pop(), None)
            if listing is not None:
                doomed += listing.directories

    def lost(self, old: Listing, new: Listing) -> Iterator[str]:
        """The directories of a listing that are gone, or others of the same name, in the newer one."""
        for path, identity in old.directories.items():
            if new.directories.get(path) != identity:
                yield path

    def with_links(self) -> list[str]:
        """The directories that hold symlinks."""
        return [path for path, listing in self.listings.items() if listing.links]

    def with_shared_files(self) -> list[str]:
        """The directories that hold files with more than one name (hard links)."""
        return [path for path, listing in self.listings.items() if listing.shared]

    def shared_files(self) -> set[tuple[int, int]]:
        """The inodes of those files."""
        return set().union(*(listing.shared for listing in self.listings.values() if listing.shared))

    def learn(self, manifest: Mapping[str, Entry]) -> None:
        """Keep what was found out about these paths' contents with their entries."""
        for path, entry in manifest.items():
            listing = self.listings.get(path.rpartition("/")[0])
            if listing is not None and path in listing.entries:
                listing.entries[path] = entry
