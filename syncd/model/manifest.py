"""The manifest, which lists what a snapshot holds, and the comparison of two manifests.

A manifest maps paths to entries in the archive's order. It is a tree of directories that never change (`directory`), so
a copy costs nothing, and two manifests that differ in a file are changed and compared at the cost of that file's
directory and those above it.

The comparison covers what users regard as a change:
kind, permission bits, link target and content. Times are not compared: a touch changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, ItemsView, Iterable, Iterator, Mapping, MutableMapping
from itertools import islice
from types import MappingProxyType
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from syncd.model.directory import EMPTY, Directory, Entries, as_bytes, differing, differing_entries, read, rebuilt
from syncd.model.entry import Entry, Kind

# So many directories at most are decoded until the changes in them are made to the tree.
_MOST_EDITED = 256


class Manifest(MutableMapping[str, Entry]):
    """Paths with their entries, in the archive's order: by name within a directory, a directory before its content.

    A path's directory is expected to have an entry of its own, as a scan finds it.
    """

    __slots__ = ("_edited", "_top")

    def __init__(self, entries: Mapping[str, Entry] = MappingProxyType({})) -> None:
        self._top = EMPTY
        self._edited: dict[str, dict[str, Entry]] = {}  # directories that were changed since `_top` was made
        for path, entry in entries.items():
            parent, _, name = path.rpartition("/")
            self._edited.setdefault(parent, {})[name] = entry

    @classmethod
    def of(cls, top: Directory) -> Manifest:
        manifest = cls()
        manifest._top = top
        return manifest

    @property
    def top(self) -> Directory:
        self._settle()
        return self._top

    def _settle(self) -> None:
        """Make the changes to the tree, which then holds all entries."""
        if self._edited:
            edited, self._edited = self._edited, {}
            self._top = rebuilt(self._top, {path: Entries(entries) for path, entries in edited.items()})

    @property
    def files(self) -> int:
        """The number of files and links."""
        return self.top.files

    @property
    def content_bytes(self) -> int:
        return self.top.content_bytes

    def copy(self) -> Manifest:
        """Return a copy; neither changes with the other."""
        return Manifest.of(self.top)

    def __or__(self, other: Mapping[str, Entry]) -> Manifest:
        changed = self.copy()
        changed.put(other.items())
        return changed

    def __getitem__(self, path: str) -> Entry:
        parent, _, name = path.rpartition("/")
        return self.entries_in(parent)[name]

    def get(self, path: str, default: Any = None) -> Any:
        parent, _, name = path.rpartition("/")
        return self.entries_in(parent).get(name, default)

    def entries_in(self, path: str) -> Mapping[str, Entry]:
        """Return the entries of one directory, by name; "" is the top."""
        edited = self._edited.get(path)
        return read(self._top.find(path).own) if edited is None else edited

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and self.get(path) is not None

    def __len__(self) -> int:
        return self.top.count

    def __iter__(self) -> Iterator[str]:
        return (path for path, _ in self.top.walk())

    def items(self) -> ItemsView[str, Entry]:
        return _Items(self)

    def __setitem__(self, path: str, entry: Entry) -> None:
        self.put(((path, entry),))

    def put(self, entries: Iterable[tuple[str, Entry]]) -> None:
        """Replace or add these entries, with their paths; many at once cost less than one by one."""
        for path, entry in entries:
            parent, _, name = path.rpartition("/")
            self._edit(parent)[name] = entry

    def __delitem__(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        if path not in self:
            raise KeyError(path)
        del self._edit(parent)[name]

    def _edit(self, path: str) -> dict[str, Entry]:
        """Return the entries of a directory, by name, to be changed."""
        edited = self._edited.get(path)
        if edited is None:
            if len(self._edited) > _MOST_EDITED:
                self._settle()
            edited = self._edited[path] = dict(read(self._top.find(path).own))
        return edited

    def with_directory(self, path: str, directory: Directory) -> Manifest:
        """Return a manifest in which this directory is as given, with everything below it; "" is the top."""
        return Manifest.of(rebuilt(self.top, {}, {path: directory}) if path else directory)

    def spread(self, count: int) -> list[str]:
        """Return about so many paths, from all over the tree, and look at no more directories than that."""
        found: list[str] = []
        todo = [("", self.top, count)]
        while todo:
            path, directory, count = todo.pop()
            parts = len(directory.below) + bool(directory.own.count)
            each = max(1, count // max(1, parts))
            found += (_join(path, name) for name in directory.own.first_names(each))
            below = islice(directory.below.items(), 0, None, max(1, parts // count))
            todo += ((_join(path, name), each_below, each) for name, each_below in below)
        return found

    def paths_within(self, paths: Collection[str]) -> list[str]:
        """Return those of these paths that are there, and all that is below any of them."""
        found = dict.fromkeys(path for path in paths if path in self)
        for path in paths:
            found.update(dict.fromkeys(f"{path}/{below}" for below, _ in self.top.find(path).walk()))
        return list(found)

    def within(self, paths: Collection[str]) -> dict[str, Entry]:
        """Return the entries of these paths, and of all that is below any of them."""
        return {path: self[path] for path in self.paths_within(paths)}

    def without(self, paths: Iterable[str]) -> Manifest:
        left = self.copy()
        for path in paths:
            left.pop(path, None)
        return left

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Manifest):
            return super().__eq__(other)
        return len(self) == len(other) and all(
            old.own.equals(new.own) for _, old, new in differing(self.top, other.top)
        )

    __hash__ = None  # type: ignore[assignment]


class _Items(ItemsView[str, Entry]):
    _mapping: Manifest

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        return self._mapping.top.walk()


def is_within(path: str, paths: Collection[str]) -> bool:
    """True if the path is one of these, or below one."""
    while path and paths:
        if path in paths:
            return True
        path = path.rpartition("/")[0]
    return False


def directories_above(paths: Iterable[str]) -> set[str]:
    """Return the directories that these paths are in, at any depth."""
    above: set[str] = set()
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in above:
            above.add(path)
    return above


def archive_order(path: str) -> list[bytes]:
    """Return the key that sorts paths as a manifest has them: a directory comes right before its content."""
    return as_bytes(path).split(b"/")


class Difference(Struct, frozen=True):
    """The difference between two manifests. `to_read` paths can only be compared after their content is read.

    `added` is the manifest itself where all of it is new: a list of a million paths would take as much memory again.
    """

    added: Collection[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    to_read: list[str] = field(default_factory=list)

    @property
    def certain(self) -> bool:
        """True if something differs, whatever the content of the `to_read` paths is."""
        return bool(self.added or self.changed or self.removed)

    def __len__(self) -> int:
        return len(self.added) + len(self.changed) + len(self.removed)


def replaced_entries(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> Iterator[str]:
    """Yield the paths whose entry is another than before, or new, in order."""
    return (path for path, _, _ in entry_changes(before, now))


def entry_changes(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> Iterator[tuple[str, Entry | None, Entry]]:
    """Yield the entries that are others than before, or new, in order, with their paths and the entries before."""
    if isinstance(before, Manifest) and isinstance(now, Manifest):
        return differing_entries(before.top, now.top)
    return ((path, before.get(path), entry) for path, entry in now.items() if before.get(path) != entry)


def removed_paths(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> list[str]:
    """Return the paths of `before` that are not there now, in order."""
    return [path for path in replaced_entries(now, before) if path not in now]


def changed_paths(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> list[str]:
    """Return the paths whose entry is another than before, new, or gone."""
    return [*replaced_entries(before, now), *removed_paths(before, now)]


def difference(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> Difference:
    """Compare two manifests; the second one has only the digests that `carry_over_digests` found."""
    if not before and isinstance(now, Manifest):
        return Difference(added=now.copy())
    added: list[str] = []
    found = Difference(added)
    for path, old, entry in entry_changes(before, now):
        if old is None:
            added.append(path)
        elif old.kind is not entry.kind or old.mode != entry.mode or old.target != entry.target:
            found.changed.append(path)
        elif entry.kind is Kind.FILE:
            if old.size_bytes != entry.size_bytes:
                found.changed.append(path)
            elif not old.digest or not entry.digest:
                found.to_read.append(path)
            elif old.digest != entry.digest:
                found.changed.append(path)
    if len(before) + len(found.added) != len(now):
        found.removed.extend(removed_paths(before, now))
    return found


def sharing(manifest: Manifest, like: Manifest) -> Manifest:
    """Return the same manifest, whose directories that are as in `like` are those of `like`: they take no memory."""
    found = differing(manifest.top, like.top)
    own = {path: theirs.own for path, mine, theirs in found if mine.own.equals(theirs.own)}
    if not own:
        return manifest
    return Manifest.of(rebuilt(manifest.top, own, like=like.top))


def carry_over_digests(known: Manifest, scanned: Manifest) -> Manifest:
    """Return the scanned manifest with the known digests of files whose stamp and size are unchanged.

    Directories that are then as in `known` are those of `known`.
    """
    if not known:
        return scanned.copy()
    own = {}
    for path, old, new in differing(known.top, scanned.top):
        own[path] = old.own if old.own.equals(new.own) else Entries(_with_digests(read(old.own), new.own.decoded()))
    return Manifest.of(rebuilt(scanned.top, own, like=known.top))


def _with_digests(known: Mapping[str, Entry], scanned: dict[str, Entry]) -> dict[str, Entry]:
    for name, entry in scanned.items():
        if entry.kind is Kind.FILE and not entry.digest:
            old = known.get(name)
            if old is not None and old.digest and old.stamp == entry.stamp and old.size_bytes == entry.size_bytes:
                scanned[name] = replace(entry, digest=old.digest)
    return scanned


def without_stamps(manifest: Manifest, like: Manifest | None = None) -> Manifest:
    """Return the manifest without stamps, so that all contents are read again.

    Directories that are then as in `like` are those of `like`.
    """
    own = {}
    for path, directory in manifest.top.directories():
        entries = directory.own.decoded()
        if any(entry.stamp is not None for entry in entries.values()):
            own[path] = Entries({n: replace(e, stamp=None) for n, e in entries.items()})
    return Manifest.of(rebuilt(manifest.top, own, like=None if like is None else like.top)) if own else manifest


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
