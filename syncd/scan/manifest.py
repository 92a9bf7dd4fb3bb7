"""The manifest, which lists what a snapshot holds, and the comparison of two manifests.

A manifest is a dict from path to `Entry` in the archive's order. The comparison covers what users regard as a change:
kind, permission bits, link target and content. Times are not compared: a touch changes nothing.

Content is compared by digest. Reading every file for its digest at every scan would cost minutes a day, so an entry
also has the file's *stamp*: the values of `stat` when it was read. While the stamp is unchanged, so is the content.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import compress
from operator import attrgetter, is_not

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


Manifest = dict[str, Entry]


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
    """Return the paths whose entry is another object than before, or new; all others are equal.

    A save leaves 50,000 entries unchanged, so this dominates a snapshot's cost: it runs no Python code for an entry.
    """
    same_paths = len(before) == len(now) and list(before) == list(now)
    previous = before.values() if same_paths else map(before.get, now)
    return list(compress(now, map(is_not, now.values(), previous)))


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
        found.removed.extend(path for path in before if path not in now)
    return found


def carry_over_digests(known: Mapping[str, Entry], scanned: Mapping[str, Entry]) -> Manifest:
    """Return the scanned manifest with the known digests of files whose stamp and size are unchanged."""
    settled = dict(scanned)
    for path in replaced_entries(known, scanned) if known else ():
        entry = scanned[path]
        if entry.kind is Kind.FILE and not entry.digest:
            old = known.get(path)
            if old is not None and old.digest and old.stamp == entry.stamp and old.size_bytes == entry.size_bytes:
                settled[path] = replace(entry, digest=old.digest, written_back=old.written_back)
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


def forget_stamps(manifest: Manifest, paths: Iterable[str]) -> None:
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
