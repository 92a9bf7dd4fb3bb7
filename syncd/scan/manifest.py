"""The manifest, which lists what a snapshot holds, and the comparison of two manifests.

A manifest maps paths to entries in the archive's order, and is grouped by directory. A copy of one shares all its
directories, and a change copies only the directory in which it is. So two manifests that differ in a file are copied,
changed and compared at the cost of that file's directory, and of one look at each other directory.

The comparison covers what users regard as a change:
kind, permission bits, link target and content. Times are not compared: a touch changes nothing.

Content is compared by digest. Reading every file for its digest at every scan would cost minutes a day, so an entry
also has the file's *stamp*: the values of `stat` when it was read. While the stamp is unchanged, so is the content.
"""

from __future__ import annotations

import os
from collections.abc import Collection, ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, compress, islice
from operator import attrgetter, is_not
from types import MappingProxyType
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

# A file may be written again within its timestamps' granularity without changing its stamp (git calls such an entry
# racily clean). Two seconds is the coarsest granularity in use (FAT), so no younger stamp is kept.
YOUNG_NS = 2_000_000_000
# A write through mmap to a page that is already dirty changes no time. Linux writes dirty pages back after 35 s (30 s
# of `vm.dirty_expire_centisecs`, 5 s between its checks), and the next write changes the times again: a file whose
# times were this old when it was read cannot change without changing them.
WRITTEN_BACK_NS = 60_000_000_000


class Kind(StrEnum):
    """The kind of a path. Sockets, FIFOs and devices are in no manifest."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"


class Stamp(Struct, frozen=True, array_like=True, gc=False):
    """The values of `stat` for a file when its content was read."""

    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One path of a snapshot. Fields that do not apply to its kind are empty."""

    kind: Kind
    mode: int
    mtime_s: int
    size_bytes: int = 0
    target: str = ""
    stamp: Stamp | None = None
    digest: bytes = b""  # sha256 of the content; empty: not known
    sent_digest: bytes = b""  # only if `digest` is not known: sha256 of the bytes that were sent instead
    written_back: bool = False  # True if the stamp was old enough at the read: any later write changes it


class Directory:
    """The entries in one directory, by path. It is changed only by the manifest that made it, before any other has it.

    `files` counts files and links, `content_bytes` is the sum of their sizes.
    """

    __slots__ = ("content_bytes", "entries", "files", "is_ordered", "owner")

    def __init__(self, entries: dict[str, Entry], owner: object = None) -> None:
        """`entries` is not copied."""
        self.entries = entries
        self.files = count_files(entries.values())
        self.content_bytes = content_bytes(entries.values())
        self.is_ordered = True
        self.owner = owner


class Manifest(MutableMapping[str, Entry]):
    """Paths with their entries, in the archive's order: by name within a directory, a directory before its content.

    A path's directory is expected to have an entry of its own, as a scan finds it.
    """

    __slots__ = ("_directories", "_is_shared", "_owner", "content_bytes", "count", "files")

    def __init__(self, entries: Mapping[str, Entry] = MappingProxyType({})) -> None:
        self._directories: dict[str, Directory] = {}
        self._is_shared = False  # another manifest has this dict of directories, too
        self._owner = object()
        self.count = self.files = self.content_bytes = 0
        grouped: dict[str, dict[str, Entry]] = {}
        for path, entry in entries.items():
            grouped.setdefault(path.rpartition("/")[0], {})[path] = entry
        for path, found in grouped.items():
            self.put_directory(path, Directory(found))
            self._directories[path].is_ordered = False

    def copy(self) -> Manifest:
        """Return a copy; neither changes with the other."""
        other = Manifest()
        other._directories = self._directories
        other.count, other.files, other.content_bytes = self.count, self.files, self.content_bytes
        other._is_shared = self._is_shared = True
        self._owner = object()
        return other

    def __or__(self, other: Mapping[str, Entry]) -> Manifest:
        changed = self.copy()
        changed.update(other)
        return changed

    def __getitem__(self, path: str) -> Entry:
        directory = self._directories.get(path.rpartition("/")[0])
        if directory is None:
            raise KeyError(path)
        return directory.entries[path]

    def get(self, path: str, default: Any = None) -> Any:
        directory = self._directories.get(path.rpartition("/")[0])
        return default if directory is None else directory.entries.get(path, default)

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and self.get(path) is not None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        return (path for path, _ in self.walk())

    def items(self) -> ItemsView[str, Entry]:
        return _Items(self)

    def values(self) -> ValuesView[Entry]:
        return _Values(self)

    def __setitem__(self, path: str, entry: Entry) -> None:
        directory = self._own(path.rpartition("/")[0])
        old = directory.entries.get(path)
        directory.entries[path] = entry
        if old is None:
            directory.is_ordered = False
        self._count(directory, old, entry)

    def __delitem__(self, path: str) -> None:
        if path not in self:
            raise KeyError(path)
        parent = path.rpartition("/")[0]
        directory = self._own(parent)
        self._count(directory, directory.entries.pop(path), None)
        if not directory.entries:
            del self._directories[parent]

    def directory(self, path: str) -> Directory | None:
        """Return a directory with its entries, None if there are none; "" is the top."""
        return self._directories.get(path)

    def put_directory(self, path: str, directory: Directory | None) -> None:
        """Replace all entries of one directory, but none below them; with None it has none."""
        self._own_directories()
        old = self._directories.pop(path, None)
        if directory is not None and directory.entries:
            self._directories[path] = directory
        for each, sign in ((old, -1), (directory, 1)):
            if each is not None:
                self.count += sign * len(each.entries)
                self.files += sign * each.files
                self.content_bytes += sign * each.content_bytes

    def directories_since(self, before: Manifest) -> list[str]:
        """Return the directories of which this manifest has other entries than `before`, or which only it has."""
        mine, theirs = self._directories, before._directories
        return [] if mine is theirs else list(compress(mine, map(is_not, mine.values(), map(theirs.get, mine))))

    def share(self, other: Manifest) -> None:
        """Use the directories of another manifest where they hold the same entries."""
        other = other.copy()  # which changes no directory of it any more
        for path in self.directories_since(other):
            theirs = other.directory(path)
            entries = self._directories[path].entries
            if theirs is not None and len(theirs.entries) == len(entries) and not _replaced(theirs.entries, entries):
                self._own_directories()
                self._directories[path] = theirs

    def spread(self, count: int) -> list[str]:
        """Return about so many paths, from as many directories as there are."""
        step = max(1, len(self._directories) // count)
        each = max(1, count // max(1, len(self._directories)))
        found: list[str] = []
        for directory in islice(self._directories.values(), 0, None, step):
            found += islice(directory.entries, each)
        return found

    def paths_within(self, paths: Collection[str]) -> list[str]:
        """Return those of these paths that are there, and all that is below any of them."""
        found = [path for path in paths if path in self]
        above = {path for path in paths if path in self._directories}
        if above:
            found += chain.from_iterable(
                directory.entries for path, directory in self._directories.items() if is_within(path, above)
            )
        return list(dict.fromkeys(found))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Manifest):
            return super().__eq__(other)
        if len(self) != len(other):
            return False
        pairs = ((self.directory(path), other.directory(path)) for path in self.directories_since(other))
        return all(mine and theirs and mine.entries == theirs.entries for mine, theirs in pairs)

    __hash__ = None  # type: ignore[assignment]

    def _own_directories(self) -> None:
        if self._is_shared:
            self._directories, self._is_shared = self._directories.copy(), False

    def _own(self, path: str) -> Directory:
        """Return a directory that may be changed."""
        self._own_directories()
        directory = self._directories.get(path)
        if directory is None:
            directory = self._directories[path] = Directory({}, self._owner)
        elif directory.owner is not self._owner:
            was_ordered = directory.is_ordered
            directory = self._directories[path] = Directory(directory.entries.copy(), self._owner)
            directory.is_ordered = was_ordered
        return directory

    def _count(self, directory: Directory, old: Entry | None, now: Entry | None) -> None:
        for entry, sign in ((old, -1), (now, 1)):
            if entry is not None:
                files = sign * (entry.kind is not Kind.DIRECTORY)
                directory.files += files
                directory.content_bytes += sign * entry.size_bytes
                self.count += sign
                self.files += files
                self.content_bytes += sign * entry.size_bytes

    def walk(self) -> Iterator[tuple[str, Entry]]:
        """Yield each path with its entry, in order."""
        # A stack, not recursion: a workspace may be nested deeper than Python calls may be.
        left = dict.fromkeys(self._directories)
        while left:
            # One whose own entry is missing comes after all that is below the top.
            top = "" if "" in left else next(iter(left))
            del left[top]
            stack = [iter(self._in_order(top))]
            while stack:
                for path, entry in stack[-1]:
                    yield path, entry
                    if entry.kind is Kind.DIRECTORY and path in left:
                        del left[path]
                        stack.append(iter(self._in_order(path)))
                        break
                else:
                    stack.pop()

    def _in_order(self, path: str) -> ItemsView[str, Entry]:
        directory = self._directories[path]
        if not directory.is_ordered:
            # The same entries: whoever has this directory, too, is not disturbed.
            entries = directory.entries
            directory.entries = {path: entries[path] for path in in_order(entries)}
            directory.is_ordered = True
        return directory.entries.items()


class _Items(ItemsView[str, Entry]):
    _mapping: Manifest

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        return self._mapping.walk()


class _Values(ValuesView[Entry]):
    _mapping: Manifest

    def __iter__(self) -> Iterator[Entry]:
        return (entry for _, entry in self._mapping.walk())


def is_within(path: str, paths: Collection[str]) -> bool:
    """True if the path is one of these, or below one."""
    while path and paths:
        if path in paths:
            return True
        path = path.rpartition("/")[0]
    return False


def in_order(names: Collection[str]) -> list[str]:
    """Sort names by their bytes; for ASCII names that is the order of their characters."""
    return sorted(names, key=None if "".join(names).isascii() else os.fsencode)


def in_archive_order(paths: Iterable[str]) -> list[str]:
    """Sort paths as a manifest has them: a directory comes right before its content."""
    return sorted(paths, key=lambda path: os.fsencode(path).split(b"/"))


@dataclass(frozen=True)
class Difference:
    """The difference between two manifests. `uncertain` paths can only be compared after their content is read."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    uncertain: list[str] = field(default_factory=list)

    @property
    def certain(self) -> bool:
        """True if something differs, whatever the content of the `uncertain` paths is."""
        return bool(self.added or self.changed or self.removed)

    def __len__(self) -> int:
        return len(self.added) + len(self.changed) + len(self.removed)


def replaced_entries(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> list[str]:
    """Return the paths whose entry is another object than before, or new; all others are equal."""
    if isinstance(before, Manifest) and isinstance(now, Manifest):
        found = []
        for path in now.directories_since(before):
            old, new = before.directory(path), now.directory(path)
            found += _replaced(old.entries if old else {}, new.entries if new else {})
        many = len(found) > len(now) // 8
        return list(compress(now, map(set(found).__contains__, now))) if many else in_archive_order(found)
    return _replaced(before, now)


def _replaced(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> list[str]:
    """A plain comparison; it runs no Python code for an entry."""
    return list(compress(now, map(is_not, now.values(), map(before.get, now))))


def removed_paths(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> list[str]:
    """Return the paths of `before` that are not there now, in order."""
    return [path for path in replaced_entries(now, before) if path not in now]


def difference(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> Difference:
    """Compare two manifests; the second one has only the digests that `carry_over_digests` found."""
    if not before:
        return Difference(added=list(now))
    found = Difference()
    for path in replaced_entries(before, now):
        old, entry = before.get(path), now[path]
        if old is None:
            found.added.append(path)
        elif old.kind is not entry.kind or old.mode != entry.mode or old.target != entry.target:
            found.changed.append(path)
        elif entry.kind is Kind.FILE:
            if old.size_bytes != entry.size_bytes:
                found.changed.append(path)
            elif not old.digest or not entry.digest:
                found.uncertain.append(path)
            elif old.digest != entry.digest:
                found.changed.append(path)
    if len(before) + len(found.added) != len(now):
        found.removed.extend(removed_paths(before, now))
    return found


def carry_over_digests(known: Mapping[str, Entry], scanned: dict[str, Entry]) -> dict[str, Entry]:
    """Return the scanned entries with the known digests of files whose stamp and size are unchanged."""
    settled = dict(scanned)
    for path in replaced_entries(known, scanned) if known else ():
        entry = scanned[path]
        if entry.kind is Kind.FILE and not entry.digest:
            old = known.get(path)
            if old is not None and old.digest and old.stamp == entry.stamp and old.size_bytes == entry.size_bytes:
                entry = replace(entry, digest=old.digest, written_back=old.written_back)
                settled[path] = old if old == entry else entry
    return settled


def as_read(entry: Entry, digest: bytes, read_at_ns: int) -> Entry:
    """Return the entry with the digest of its content; the stamp is kept only if it was old enough.

    `read_at_ns` is the wall clock just before the read. Only the ctime counts: the mtime can be set to anything.
    """
    stamp = entry.stamp
    age_ns = 0 if stamp is None else read_at_ns - stamp.ctime_ns
    stamp = stamp if age_ns > YOUNG_NS else None
    return replace(entry, digest=digest, stamp=stamp, sent_digest=b"", written_back=age_ns > WRITTEN_BACK_NS)


def not_written_back(manifest: Mapping[str, Entry]) -> list[str]:
    """Return the files that may have changed since they were read although their stamps are the same."""
    return [path for path, entry in manifest.items() if entry.digest and entry.stamp and not entry.written_back]


def forget_stamps(manifest: MutableMapping[str, Entry], paths: Iterable[str]) -> None:
    """Remove the stamps of these paths, so that their contents are read again."""
    for path in paths:
        entry = manifest.get(path)
        if entry is not None and entry.stamp is not None:
            manifest[path] = replace(entry, stamp=None, written_back=False)


def as_sent(entry: Entry, size_bytes: int, digest: bytes) -> Entry:
    """Return the entry of a file that changed while it was read: `size_bytes` with this digest were sent.

    It has no digest and no stamp, so that the file is read again: the bytes that were sent may be half old, half new.
    """
    return replace(entry, size_bytes=size_bytes, digest=b"", stamp=None, sent_digest=digest, written_back=False)


def arrived_digest(entry: Entry) -> bytes:
    """Return the digest of a file's bytes in the archive, whatever the local file holds; empty if it is not known."""
    return entry.digest or entry.sent_digest


def without_digest(entries: Mapping[str, Entry]) -> list[str]:
    """Return the files whose digest is not known."""
    return [path for path, entry in entries.items() if not entry.digest and entry.kind is Kind.FILE]


def content_bytes(entries: Iterable[Entry]) -> int:
    """Return the sum of the files' sizes."""
    return sum(map(attrgetter("size_bytes"), entries))


def count_files(entries: Iterable[Entry]) -> int:
    """Return the number of files and links."""
    kinds = list(map(attrgetter("kind"), entries))
    return len(kinds) - kinds.count(Kind.DIRECTORY)
