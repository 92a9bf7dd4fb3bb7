"""An entry: what is known of one path on one side, here, there or in the base.

A file's content is known by its digest. Reading every file for its digest at every scan would cost minutes a day, so an
entry also has the file's *stamp*: the values of `stat` when it was read. While the stamp is unchanged, so is the
content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from itertools import pairwise
from operator import attrgetter

from msgspec import Struct
from msgspec.structs import replace

# A file may be written again without changing its stamp: within its timestamps' granularity (git calls such an entry
# racily clean; two seconds on FAT), and through a mapping to a page that is already dirty. Linux writes dirty pages
# back after 35 s (30 s of `vm.dirty_expire_centisecs`, 5 s between its checks), and the next write changes the times
# again. So no stamp is kept that was younger than this when its file was read.
YOUNG_NS = 60_000_000_000


class Kind(StrEnum):
    """The kind of a path. A manifest holds the first three alone."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"
    OTHER = "o"  # a socket, a FIFO or a device; here also what is behind a link or a file
    ABSENT = ""  # nothing; there also what is behind a link or a file that took a directory's place
    UNREAD = "?"  # it cannot be read, or nobody looked


class Stamp(Struct, frozen=True, array_like=True, gc=False):
    """The values of `stat` for a file when its content was read."""

    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One path of one side. Fields that do not apply to its kind, or are not known, are empty."""

    kind: Kind
    mode: int = 0
    mtime_s: int = 0
    size_bytes: int = 0
    target: str = ""
    stamp: Stamp | None = None
    digest: bytes = b""  # sha256 of the content; empty: not known
    sent_digest: bytes = b""  # only if `digest` is not known: sha256 of the bytes that were sent instead

    @property
    def is_directory(self) -> bool:
        return self.kind is Kind.DIRECTORY


class SeenEntry(Entry, frozen=True, array_like=True, gc=False):
    """An entry as a look saw it in the sandbox, with its permission bits.

    `copy` is the file on this machine that holds a file's content, empty if none was fetched. `unstable`: the file
    changed while it was looked at, so that what was read of it may be half old and half new; it has no copy.
    """

    copy: str = ""
    unstable: bool = False


ABSENT = SeenEntry(Kind.ABSENT)


def with_copy(entry: Entry, copy: str) -> SeenEntry:
    """Return an entry of home as one of the sandbox, with the file that holds its content."""
    digest = arrived_digest(entry)
    return SeenEntry(entry.kind, entry.mode, entry.mtime_s, entry.size_bytes, entry.target, digest=digest, copy=copy)


ALL_BITS = 0o777
EXECUTABLE = 0o100  # the only bit of a mode that every extractor keeps, and a person at home need not


def same(one: Entry, other: Entry, bits: int = EXECUTABLE) -> bool:
    """True if two entries are known to be the same, but for times and for the mode's other bits.

    Of what is put there, all bits of the mode are known; of what someone there made of it, the executable one counts.
    """
    if one.kind is not other.kind or one.kind in (Kind.OTHER, Kind.UNREAD):
        return False
    if one.kind is Kind.SYMLINK:
        return one.target == other.target
    if one.kind is Kind.FILE:
        return arrived_digest(one) == arrived_digest(other) != b"" and not (one.mode ^ other.mode) & bits
    return bits == EXECUTABLE or not (one.mode ^ other.mode) & bits


def mode_at_home(mode: int, umask: int) -> int:
    """Return the permission bits that something new gets here: of others' bits those that the person's umask allows.

    The owner's stay, since the executable one is a part of what was made.
    """
    return mode & ALL_BITS & ~(umask & 0o077)


def is_savable(entry: SeenEntry) -> bool:
    """True for a directory, a link, and a file whose content was fetched; nothing else can be saved."""
    return entry.kind in (Kind.DIRECTORY, Kind.SYMLINK) or (entry.kind is Kind.FILE and entry.copy != "")


def as_read(entry: Entry, digest: bytes, read_at_ns: int) -> Entry:
    """Return the entry with the digest of its content; the stamp is kept only if it was old enough.

    `read_at_ns` is the wall clock just before the read. Only the ctime counts: the mtime can be set to anything.
    """
    stamp = entry.stamp
    age_ns = 0 if stamp is None else read_at_ns - stamp.ctime_ns
    return replace(entry, digest=digest, stamp=stamp if age_ns > YOUNG_NS else None, sent_digest=b"")


def as_sent(entry: Entry, size_bytes: int, digest: bytes) -> Entry:
    """Return the entry of a file that changed while it was read: `size_bytes` with this digest were sent.

    It has no digest and no stamp, so that the file is read again: the bytes that were sent may be half old, half new.
    """
    return replace(entry, size_bytes=size_bytes, digest=b"", stamp=None, sent_digest=digest)


def arrived_digest(entry: Entry) -> bytes:
    """Return the digest of a file's bytes in the archive, whatever the local file holds; empty if it is not known."""
    return entry.digest or entry.sent_digest


def content_bytes(entries: Iterable[Entry]) -> int:
    """Return the sum of the files' sizes."""
    return sum(map(attrgetter("size_bytes"), entries))


def count_files(entries: Iterable[Entry]) -> int:
    """Return the number of files and links."""
    kinds = list(map(attrgetter("kind"), entries))
    return len(kinds) - kinds.count(Kind.DIRECTORY)


# -- symbolic links: where they lead, by their targets' text and those of the links on the way. The disk is not used, so
# a link in a circle or to nowhere is a link like any other. Extractors check the text as well: Python's `data` filter
# refuses a whole archive for one link that is absolute or leads outside.

# The kernel follows 40 links (path_resolution(7)), `realpath` any number; a longer chain is treated as a circle.
_MAX_FOLLOWED = 256

LinkAt = Callable[[str], str | None]
"""Returns the target of the link at a path; None if there is no link."""


def stays_inside(path: str, target: str) -> bool:
    """True if `target`, the text of a link at `path`, stays inside the workspace, other links aside."""
    if not target or target.startswith("/"):
        return False
    depth = path.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
            if depth < 0:
                return False
        elif part not in ("", "."):
            depth += 1
    return True


def has_inner_dotdot(target: str) -> bool:
    """True if a ".." follows a name, as in `a/../b`: then the destination depends on `a`, which may be a link.

    Links without this that each stay inside by their text stay inside together.
    """
    components = [part for part in target.split("/") if part not in ("", ".")]
    return any(after == ".." and before != ".." for before, after in pairwise(components))


def leads_out(path: str, target: str, link_at: LinkAt) -> bool:
    """True if a link that stays inside by its text leaves the workspace through other links."""
    location = path.split("/")[:-1]
    remaining = target.split("/")[::-1]
    followed = 0
    while remaining:
        part = remaining.pop()
        if part == "..":
            if not location:
                return True
            location.pop()
        elif part not in ("", "."):
            location.append(part)
            next_target = link_at("/".join(location))
            if next_target is not None:
                followed += 1
                if followed > _MAX_FOLLOWED:
                    return False
                location.pop()
                remaining += next_target.split("/")[::-1]
    return False
