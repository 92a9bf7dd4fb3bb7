"""What a snapshot holds: one entry a path, and whether two manifests mean the same workspace.

A manifest is a dict from path to `Entry` in the archive's order. Equality is about what a person would call a change:
kind, permission bits, link target and content. Times are not: a touch changes nothing.

Content is compared by digest. Reading every file for it at every scan would cost minutes a day, so an entry also
carries the file's *stamp*, what `stat` said of it when it was read: while the stamp stands, the content does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import compress
from operator import attrgetter, is_not

from msgspec import Struct
from msgspec.structs import replace

# A file may be written again within its timestamps' granularity without its stamp changing (git calls such an entry
# racily clean). Two seconds is the coarsest granularity in use (FAT); nothing younger than that is believed.
YOUNG_NS = 2_000_000_000
# A write through mmap to a page that is dirty already changes no time. Linux writes dirty pages back after 35 s (30 of
# `vm.dirty_expire_centisecs`, 5 s until it looks again), and the next write moves the times again: files whose times
# were this old when they were read cannot change without their moving.
WRITTEN_BACK_NS = 60_000_000_000


class Kind(StrEnum):
    """What a path is. Sockets, FIFOs and devices are in no manifest."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"


class Stamp(Struct, frozen=True, array_like=True, gc=False):
    """What `stat` said of a file when its content was read."""

    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One path of a snapshot. Fields that a kind has no use for are empty."""

    kind: Kind
    mode: int
    mtime_s: int
    size_bytes: int = 0
    target: str = ""
    stamp: Stamp | None = None
    digest: bytes = b""  # sha256 of the content; empty: not known
    sent_digest: bytes = b""  # only where `digest` is not known: sha256 of the bytes that were sent in its place
    written_back: bool = False  # whether the stamp was so old at the read that no later write can hide from it


Manifest = dict[str, Entry]


@dataclass(frozen=True)
class Difference:
    """How a manifest differs from the one before. `uncertain_reason`: only their digests can tell."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    uncertain_reason: list[str] = field(default_factory=list)

    @property
    def certain(self) -> bool:
        """Something differs, whatever the doubtful ones turn out to be."""
        return bool(self.added or self.changed or self.removed)

    def __len__(self) -> int:
        return len(self.added) + len(self.changed) + len(self.removed)


def replaced(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> list[str]:
    """The paths whose entry is another object than before, or new: all others need no look.

    A save leaves 50,000 entries as they are, so this is where a snapshot's price is made: no line of Python an entry.
    """
    same_paths = len(before) == len(now) and list(before) == list(now)
    were = before.values() if same_paths else map(before.get, now)
    return list(compress(now, map(is_not, now.values(), were)))


def difference(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> Difference:
    """Compare two manifests, the second one's digests being known only where `settle` could carry them over."""
    found = Difference()
    for path in replaced(before, now):
        old, entry = before.get(path), now[path]
        if old is None:
            found.added.append(path)
        elif old.kind is not entry.kind or old.mode != entry.mode or old.target != entry.target:
            found.changed.append(path)
        elif entry.kind is Kind.FILE:
            if old.size_bytes != entry.size_bytes:
                found.changed.append(path)
            elif not old.digest or not entry.digest:
                found.uncertain_reason.append(path)
            elif old.digest != entry.digest:
                found.changed.append(path)
    if len(before) + len(found.added) != len(now):
        found.removed.extend(path for path in before if path not in now)
    return found


def settle(known: Mapping[str, Entry], scanned: Mapping[str, Entry]) -> Manifest:
    """The scanned manifest with every digest that still holds, because the file's stamp and size stand."""
    settled = dict(scanned)
    for path in replaced(known, scanned):
        entry = scanned[path]
        if entry.kind is Kind.FILE and not entry.digest:
            old = known.get(path)
            if old is not None and old.digest and old.stamp == entry.stamp and old.size_bytes == entry.size_bytes:
                settled[path] = replace(entry, digest=old.digest, written_back=old.written_back)
    return settled


def as_read(entry: Entry, digest: bytes, read_at_ns: int) -> Entry:
    """The entry with the digest of what was read, its stamp kept only if it is old enough to be believed.

    `read_at_ns` is the wall clock just before the read. Only the ctime counts: the mtime can be set to anything.
    """
    stamp = entry.stamp
    age_ns = 0 if stamp is None else read_at_ns - stamp.ctime_ns
    stamp = stamp if age_ns > YOUNG_NS else None
    return replace(entry, digest=digest, stamp=stamp, sent_digest=b"", written_back=age_ns > WRITTEN_BACK_NS)


def not_written_back(manifest: Mapping[str, Entry]) -> list[str]:
    """The files that may have changed since they were read, though their stamps stand: only events tell."""
    return [path for path, entry in manifest.items() if entry.digest and entry.stamp and not entry.written_back]


def disbelieve(manifest: Manifest, paths: Iterable[str]) -> None:
    """Take the stamps of these paths, so that their contents are read again."""
    for path in paths:
        entry = manifest.get(path)
        if entry is not None and entry.stamp is not None:
            manifest[path] = replace(entry, stamp=None, written_back=False)


def as_sent(entry: Entry, size_bytes: int, digest: bytes) -> Entry:
    """The entry of a file that changed while it was read: `size_bytes` with this digest were sent.

    The file itself must be looked at again, so nothing of it is believed: what was sent may be half old, half new.
    """
    return replace(entry, size_bytes=size_bytes, digest=b"", stamp=None, sent_digest=digest, written_back=False)


def arrived_digest(entry: Entry) -> bytes:
    """The digest of a file's bytes in the archive, whatever the file at home holds; empty where nobody knows it."""
    return entry.digest or entry.sent_digest


def unknown(entries: Mapping[str, Entry]) -> list[str]:
    """The files whose content is not known."""
    return [path for path, entry in entries.items() if not entry.digest and entry.kind is Kind.FILE]


def content_bytes(entries: Iterable[Entry]) -> int:
    """The sum of the files' sizes."""
    return sum(map(attrgetter("size_bytes"), entries))


def count_files(entries: Iterable[Entry]) -> int:
    """How many entries are files or links."""
    kinds = list(map(attrgetter("kind"), entries))
    return len(kinds) - kinds.count(Kind.DIRECTORY)
