"""What a scan remembers of each directory, so that the next one need only look where something happened.

A `TreeCache` holds one `DirRecord` for each directory, by path. The manifest is put together from it, and kept while
directories are looked at again and hold the same names; what is no longer in a directory takes everything below along.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from syncd.core.file_identity import FileIdentity
from syncd.core.warning import SyncWarning
from syncd.scan.manifest import Entry, Kind, Manifest, disbelieve
from syncd.selection.selection import Rule, Scope


@dataclass(slots=True)
class DirIssues:
    """What is to be said of a directory beyond its entries, as of few."""

    warnings: list[SyncWarning] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    turning_links: list[str] = field(default_factory=list)  # where they lead depends on other links (scan/links.py)
    # Files with other names too, and which they are (device and inode): written by another name, their own directory
    # brings no event. A number that goes to another file between two looks does no harm: that file is new itself.
    shared: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class DirRecord:
    """One directory as it was listed. `outer` is its scope before its own ignore files, whose contents are `rules`."""

    identity: FileIdentity
    outer: Scope
    scope: Scope
    rules: Mapping[str, bytes]
    entries: dict[str, Entry] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)
    issues: DirIssues | None = None
    left_out: dict[Rule, int] | None = None  # how many paths each rule keeps at home

    def leaves_out(self, rule: Rule | None) -> None:
        """One more path stays home by this rule."""
        if rule is not None:
            self.left_out = self.left_out or {}
            self.left_out[rule] = self.left_out.get(rule, 0) + 1

    def note(self) -> DirIssues:
        """To be added to."""
        if self.issues is None:
            self.issues = DirIssues()
        return self.issues


class TreeCache:
    """The listings of one workspace."""

    def __init__(self) -> None:
        self._listings: dict[str, DirRecord] = {}
        self._issues: dict[str, DirIssues] = {}
        self._manifest: Manifest | None = None
        self.left_out: dict[Rule, int] = {}  # of all listings; numbers may be 0

    def get(self, path: str) -> DirRecord | None:
        """The directory's listing, if there is one."""
        return self._listings.get(path)

    def put(self, path: str, listing: DirRecord) -> None:
        """The directory as it was just listed, or listed and then changed."""
        old = self._listings.get(path)
        self._listings[path] = listing
        if old is not listing:
            self._count(old, -1)
            self._count(listing, 1)
        if listing.issues is not None:
            self._issues[path] = listing.issues
        else:
            self._issues.pop(path, None)
        if self._manifest is not None:
            if old is None or old is listing or list(old.entries) != list(listing.entries):
                self._manifest = None
            else:
                self._manifest.update(listing.entries)

    def drop(self, path: str) -> None:
        """Forget a directory and all below it."""
        self._manifest = None
        paths_to_delete = [path]
        while paths_to_delete:
            path = paths_to_delete.pop()
            listing = self._listings.pop(path, None)
            self._issues.pop(path, None)
            self._count(listing, -1)
            if listing is not None:
                paths_to_delete += listing.directories

    def _count(self, listing: DirRecord | None, times: int) -> None:
        if listing is not None and listing.left_out:
            for rule, number in listing.left_out.items():
                self.left_out[rule] = self.left_out.get(rule, 0) + times * number

    def set_entry(self, path: str, entry: Entry) -> None:
        """More is known of the path, if it is still there."""
        listing = self._listings.get(path.rpartition("/")[0])
        if listing is not None and path in listing.entries:
            listing.entries[path] = entry
            if self._manifest is not None:
                self._manifest[path] = entry

    def disbelieve(self, paths: Collection[str]) -> None:
        """Take the stamps of these paths, if they are there."""
        for path in paths:
            listing = self._listings.get(path.rpartition("/")[0])
            if listing is not None:
                disbelieve(listing.entries, (path,))
        if self._manifest is not None:
            disbelieve(self._manifest, paths)

    def manifest(self) -> Manifest:
        """All entries in the archive's order: by name within a directory, a directory before what is in it."""
        if self._manifest is None:
            self._manifest = self._gathered()
        return dict(self._manifest)

    def _gathered(self) -> Manifest:
        manifest: Manifest = {}
        # A stack, not recursion: a workspace may be nested deeper than Python calls may be.
        stack = [iter(self._listings[""].entries.items())]
        while stack:
            for path, entry in stack[-1]:
                manifest[path] = entry
                if entry.kind is Kind.DIRECTORY:
                    below = self._listings.get(path)
                    if below is None:
                        continue
                    if below.directories:
                        stack.append(iter(below.entries.items()))
                        break
                    manifest.update(below.entries)
            else:
                stack.pop()
        return manifest

    def issues(self) -> Iterable[DirIssues]:
        """What is to be said of directories, beyond their entries."""
        return self._issues.values()

    def with_shared_files(self) -> list[str]:
        """The directories that hold files with more than one name (hard links)."""
        return [path for path, issues in self._issues.items() if issues.shared]

    def shared_files(self) -> set[tuple[int, int]]:
        """The inodes of those files."""
        return {file for issues in self._issues.values() for file in issues.shared.values()}

    def all_names(self, paths: Collection[str]) -> set[str]:
        """These paths, and all others of the same files."""
        shared = [(path, file) for issues in self._issues.values() for path, file in issues.shared.items()]
        files = {file for path, file in shared if path in paths}
        return {*paths, *(path for path, file in shared if file in files)}


def in_order(names: Collection[str]) -> list[str]:
    """By their bytes, which is by their characters unless some name is not UTF-8."""
    return sorted(names, key=None if "".join(names).isascii() else os.fsencode)
