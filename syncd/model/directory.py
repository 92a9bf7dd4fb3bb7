"""The directories of which a manifest is made. They never change, so that manifests may share them, as git's trees.

Equal directories are equal by one comparison, and a change makes anew only the directories from it up to the top. The
entries are kept encoded, as some 90 bytes each: as objects they would take 600, and few of a large tree are ever read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from types import MappingProxyType

import msgspec
from msgspec.structs import replace

from syncd.model.entry import Entry, Kind, content_bytes, count_files

# Paths are read directory by directory; so many stay decoded, of large ones fewer: 10,000 entries take 6 MB.
_DECODED, _DECODED_LARGE = 64, 4
_LARGE = 500
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Entry]).decode


class Entries:
    """The entries of one directory, by name and in the order of their bytes.

    `texts` are the names and after them the targets of the links, as bytes with a NUL between them; `encoded` are the
    entries in MessagePack, without the targets, which need not be UTF-8.
    """

    __slots__ = ("content_bytes", "count", "encoded", "files", "texts")

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        names = in_order(entries)
        values = [entries[name] for name in names]
        self.count, self.files, self.content_bytes = len(values), count_files(values), content_bytes(values)
        links = [at for at, entry in enumerate(values) if entry.kind is Kind.SYMLINK]
        names += [values[at].target for at in links]
        for at in links:
            values[at] = replace(values[at], target="")
        self.texts = as_bytes("\0".join(names))
        self.encoded = _encode(values)

    @classmethod
    def stored(cls, texts: bytes, encoded: bytes) -> Entries:
        """Return entries that were written to a file. Raises `msgspec.MsgspecError` if they are none."""
        entries = cls.__new__(cls)
        entries.texts, entries.encoded = texts, encoded
        values = _decode(encoded)
        entries.count, entries.files, entries.content_bytes = len(values), count_files(values), content_bytes(values)
        return entries

    def equals(self, other: Entries) -> bool:
        """True if both hold the same. No `==`: the cache of `read` would compare a directory of 10,000 at each call."""
        return self is other or (self.encoded == other.encoded and self.texts == other.texts)

    def first_names(self, most: int) -> list[str]:
        """Return the names, in order, at most so many of them."""
        most = min(most, self.count)
        return _as_text(self.texts).split("\0", most)[:most]

    def decoded(self) -> dict[str, Entry]:
        if not self.count:
            return {}
        entries = _decode(self.encoded)
        texts = _as_text(self.texts).split("\0")
        if len(texts) > len(entries):
            targets = iter(texts[len(entries) :])
            for at, entry in enumerate(entries):
                if entry.kind is Kind.SYMLINK:
                    entries[at] = replace(entry, target=next(targets, ""))
        return dict(zip(texts, entries, strict=False))


def read(entries: Entries) -> Mapping[str, Entry]:
    """Return the entries by name, from memory if they were read lately."""
    return (_read_large if entries.count > _LARGE else _read)(entries)


@lru_cache(maxsize=_DECODED)
def _read(entries: Entries) -> Mapping[str, Entry]:
    return MappingProxyType(entries.decoded())


@lru_cache(maxsize=_DECODED_LARGE)
def _read_large(entries: Entries) -> Mapping[str, Entry]:
    return MappingProxyType(entries.decoded())


def forget_decoded() -> None:
    """Forget what stays decoded: a directory of 100,000 entries takes 60 MB."""
    _read.cache_clear()
    _read_large.cache_clear()


class Directory:
    """A directory's own entries, and by name the directories in it that are not empty.

    `count`, `files` (and links) and `content_bytes` are those of its entries and of all below.
    """

    __slots__ = ("below", "content_bytes", "count", "files", "own")

    def __init__(self, own: Entries, below: Mapping[str, Directory] = MappingProxyType({})) -> None:
        self.own = own
        self.below = below
        self.count, self.files, self.content_bytes = own.count, own.files, own.content_bytes
        for directory in below.values():
            self.count += directory.count
            self.files += directory.files
            self.content_bytes += directory.content_bytes

    def replaced(self, own: Entries | None, below: Mapping[str, Directory]) -> Directory:
        """Return the directory with other entries of its own (None: the same), and with some other directories in it.

        It is the same object if nothing is other than before.
        """
        own = self.own if own is None or own.equals(self.own) else own
        others = {name: each for name, each in below.items() if self.below.get(name, EMPTY) is not each}
        if own is self.own and not others:
            return self
        merged = {**self.below, **others}
        if len(merged) != len(self.below) or not all(each.count for each in others.values()):
            merged = {name: merged[name] for name in in_order(merged) if merged[name].count}
            return Directory(own, merged) if merged or own.count else EMPTY
        # One of many directories changed: the others are not counted anew.
        made = Directory.__new__(Directory)
        made.own, made.below = own, merged
        made.count = self.count - self.own.count + own.count
        made.files = self.files - self.own.files + own.files
        made.content_bytes = self.content_bytes - self.own.content_bytes + own.content_bytes
        for name, each in others.items():
            before = self.below[name]
            made.count += each.count - before.count
            made.files += each.files - before.files
            made.content_bytes += each.content_bytes - before.content_bytes
        return made if merged or own.count else EMPTY

    def find(self, path: str) -> Directory:
        """Return the directory at this path below this one; an empty one if there is none."""
        found = self
        if path:
            for name in path.split("/"):
                below = found.below.get(name)
                if below is None:
                    return EMPTY
                found = below
        return found

    def walk(self) -> Iterator[tuple[str, Entry]]:
        """Yield all paths with their entries, in the archive's order: a directory's content comes right after it."""
        return ((path, entry) for path, _, entry in differing_entries(EMPTY, self))

    def directories(self) -> Iterator[tuple[str, Directory]]:
        """Yield this directory and all below it that are not empty, with their paths; one comes before those in it."""
        todo = [("", self)]
        while todo:
            path, directory = todo.pop()
            yield path, directory
            todo += ((_below(path, name), each) for name, each in directory.below.items())


def differing(before: Directory, now: Directory) -> Iterator[tuple[str, Directory, Directory]]:
    """Yield the directories of `now` that are other objects than before: path, the one before and the one now."""
    todo = [("", before, now)]
    while todo:
        path, old, new = todo.pop()
        if old is not new:
            yield path, old, new
            todo += (
                (_below(path, name), old.below.get(name, EMPTY), each)
                for name, each in new.below.items()
                if old.below.get(name) is not each
            )


def differing_entries(before: Directory, now: Directory) -> Iterator[tuple[str, Entry | None, Entry]]:
    """Yield the entries of `now` that are others than before, or new, in the archive's order, with their paths.

    The one before comes first, None if there was none. Directories that are the same object are not looked into.
    """
    # A stack, not recursion: a workspace may be nested deeper than Python calls may be.
    stack = [("", before, now, _steps(before, now))]
    while stack:
        prefix, old, new, steps = stack[-1]
        for name, entry_before, entry in steps:
            if entry is not None and entry != entry_before:
                yield prefix + name, entry_before, entry
            below = new.below.get(name)
            if below is not None and below is not old.below.get(name):
                old_below = old.below.get(name, EMPTY)
                stack.append((f"{prefix}{name}/", old_below, below, _steps(old_below, below)))
                break
        else:
            stack.pop()


def _steps(before: Directory, now: Directory) -> Iterator[tuple[str, Entry | None, Entry | None]]:
    """Return the names in a directory that may differ, each with its entries before and now."""
    if before.own.equals(now.own):
        return iter([(name, None, None) for name, each in now.below.items() if before.below.get(name) is not each])
    entries_before, entries = read(before.own), read(now.own)
    without_entry = [(name, None, None) for name in now.below if name not in entries]
    return chain(((name, entries_before.get(name), entry) for name, entry in entries.items()), without_entry)


def rebuilt(
    top: Directory,
    own: Mapping[str, Entries],
    whole: Mapping[str, Directory] = MappingProxyType({}),
    like: Directory | None = None,
) -> Directory:
    """Return the tree with the `own` entries of some directories replaced, and some `whole` directories, by path.

    A directory that is equal to the one of `like` is that one: later comparisons see so at once.
    """
    below: dict[str, dict[str, Directory]] = {}
    for path, directory in whole.items():
        parent, _, name = path.rpartition("/")
        below.setdefault(parent, {})[name] = directory
    todo = {"", *own, *below}
    for path in (*own, *below):
        above = path.rpartition("/")[0]
        while above not in todo:
            todo.add(above)
            above = above.rpartition("/")[0]
    made = top
    for path in sorted(todo, reverse=True):  # those in a directory come before it
        old = top.find(path)
        made = old.replaced(own.get(path), below.pop(path, {}))
        if like is not None:
            made = _same(made, like.find(path))
        if path:
            parent, _, name = path.rpartition("/")
            below.setdefault(parent, {})[name] = made
    return made


def _same(made: Directory, other: Directory) -> Directory:
    """Return the other directory if it is equal, whose directories are the same objects then."""
    if made is other or not made.own.equals(other.own) or len(made.below) != len(other.below):
        return made
    return other if all(other.below.get(name) is each for name, each in made.below.items()) else made


def in_order(names: Collection[str]) -> list[str]:
    """Sort names by their bytes; for ASCII names that is the order of their characters."""
    return sorted(names, key=None if "".join(names).isascii() else as_bytes)


def as_bytes(text: str) -> bytes:
    """Return a name or a path as the kernel has it."""
    return text.encode("utf-8", "surrogateescape")


def _as_text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _below(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


EMPTY = Directory(Entries({}))
