"""Reads the status and the content of the workspace's files, and detects changes during the read.

A file is opened from its directory's descriptor, and its status is compared before and after the read.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from msgspec import Struct

from syncd.core import safe_open
from syncd.core.clock import Clock
from syncd.model.entry import Entry, Kind, Stamp, as_read
from syncd.selection.secret_scanner import SEARCHED_BYTES, Secret, SecretSearch

_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800
_STATX_BYTES = 256
_STATX_MASK = struct.Struct("=I")
_STATX_BTIME_FIELD = struct.Struct("=qI")
_STATX_BTIME_OFFSET = 80
_SECOND_NS = 1_000_000_000
_statx = getattr(ctypes.CDLL(None), "statx", None)


class FileIdentity(Struct, frozen=True, array_like=True):
    """A directory. `birth_ns` is 0 where it is not known, or not asked for.

    ext4 gives the inode number of a removed directory to the next one that is created, which has another birth time.
    """

    device: int = 0
    inode: int = 0
    birth_ns: int = 0

    def matches(self, other: FileIdentity) -> bool:
        """True if both identify the same directory, by all that is known of both.

        Different device numbers mean different directories, although a reboot or a remount may change the number of
        the same directory: the top directories of two disks have the same inode number.
        """
        same_inode = (self.device, self.inode) == (other.device, other.inode)
        return same_inode and (not (self.birth_ns and other.birth_ns) or self.birth_ns == other.birth_ns)


def identity_of(status: os.stat_result, birth_ns: int = 0) -> FileIdentity:
    """Return the identity of a directory with this status."""
    return FileIdentity(status.st_dev, status.st_ino, birth_ns)


def lasting_identity_of(descriptor: int) -> FileIdentity:
    """Return the identity with the birth time, for a record that outlives a restart. Raises `OSError`."""
    return identity_of(os.fstat(descriptor), _birth_ns(descriptor))


def _birth_ns(descriptor: int) -> int:
    """Return the birth time (statx(2)); 0 if it is not known."""
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    if _statx is None or _statx(descriptor, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer) != 0:
        return 0
    (known,) = _STATX_MASK.unpack_from(buffer)
    seconds, nanoseconds = _STATX_BTIME_FIELD.unpack_from(buffer, _STATX_BTIME_OFFSET)
    return int(seconds * _SECOND_NS + nanoseconds) if known & _STATX_BTIME else 0


# A file up to this size, in which secrets are searched, is packed in one piece and, if it changed meanwhile, again;
# larger ones in such pieces.
PIECE_BYTES = SEARCHED_BYTES
_PERMISSIONS = 0o1777


class ReadError(Exception):
    """Reading a file of the workspace failed; it is distinct from a failure to write the spool."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def file_entry(status: os.stat_result) -> Entry:
    """Return the entry of a regular file, without a digest."""
    return Entry(Kind.FILE, permissions(status.st_mode), mtime_s(status), status.st_size, stamp=stamp_of(status))


def directory_entry(status: os.stat_result) -> Entry:
    return Entry(Kind.DIRECTORY, permissions(status.st_mode), mtime_s(status))


def is_valid(entry: Entry, status: os.stat_result) -> bool:
    """True if an entry is still valid. That of a file without digest, or without stamp, is not."""
    if entry.digest:
        return entry.stamp == stamp_of(status) and entry.size_bytes == status.st_size
    return entry.kind is Kind.DIRECTORY and entry == directory_entry(status)


def matches_status(entry: Entry, status: os.stat_result) -> bool:
    """True if a file's entry matches its status after a read: then the content is that of the entry."""
    return (
        entry.size_bytes == status.st_size
        and entry.mode == permissions(status.st_mode)
        and entry.stamp == stamp_of(status)
    )


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp of a file: as long as it is the same, so is the content.

    A time that no record has room for, before 1678 or after 2554, is the next one that fits.
    """
    mtime_ns = min(max(status.st_mtime_ns, -(1 << 63)), (1 << 64) - 1)
    return Stamp(mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


def mtime_s(status: os.stat_result) -> int:
    """Return the modification time in whole seconds, rounded down."""
    return status.st_mtime_ns // _SECOND_NS


def permissions(mode: int) -> int:
    """Return the mode for an archive: permission and sticky bits, without the set-id bits."""
    return mode & _PERMISSIONS


def read_at(descriptor: int, offset: int, size_bytes: int) -> bytes:
    """Read so many bytes from the offset; fewer only at the file's end. Raises `ReadError`."""
    try:
        content = os.pread(descriptor, size_bytes, offset)
        while 0 < len(content) < size_bytes:
            more = os.pread(descriptor, size_bytes - len(content), offset + len(content))
            if not more:
                break
            content += more
    except OSError as failure:
        raise ReadError(failure) from failure
    return content


def pieces(descriptor: int, size_bytes: int, check: Callable[[], None]) -> Iterator[bytes]:
    """Yield so many bytes of a file in pieces, one at least, which are short beyond its end. Raises `ReadError`.

    A file that is written faster than it is read has no end.
    """
    for offset in range(0, max(1, size_bytes), PIECE_BYTES):
        check()
        yield read_at(descriptor, offset, min(PIECE_BYTES, size_bytes - offset))


def search_in(search: SecretSearch | None, path: str, size_bytes: int) -> Callable[[bytes], Secret | None]:
    """Return what finds a secret in the next piece of a file of this size; in several ones only syncd's own keys."""
    if search is None:
        return lambda _piece: None
    return partial(search.in_file, path) if size_bytes <= PIECE_BYTES else search.in_pieces(path)


def wall_ns(clock: Clock) -> int:
    return int(clock.wall_s() * 1e9)


class ContentReader(Struct, eq=False):
    """Reads files of one workspace for their digests and secrets."""

    workspace: str
    clock: Clock
    check: Callable[[], None] = lambda: None
    search: SecretSearch | None = None

    def secrets(self, paths: Iterable[str]) -> dict[str, Secret]:
        """Return the files that hold a secret; one that cannot be read is skipped. Raises `WorkspaceError`."""
        found: dict[str, Secret] = {}
        for path, descriptor, status in self._opened(paths) if self.search else ():
            with contextlib.suppress(ReadError):
                read = pieces(descriptor, status.st_size, self.check)
                secret = next(filter(None, map(search_in(self.search, path, status.st_size), read)), None)
                if secret is not None:
                    found[path] = secret
        return found

    def digests(self, paths: Iterable[str]) -> Iterator[tuple[str, Entry]]:
        """Yield these paths with their entries, which have digests, as each is read.

        Files that cannot be read, that changed meanwhile, or that hold a secret are omitted; the packer finds the
        secret. Raises `WorkspaceError`.
        """
        for path, descriptor, status in self._opened(paths):
            try:
                entry = self._digest(path, descriptor, status)
            except ReadError:
                continue
            if entry is not None:
                yield path, entry

    def _opened(self, paths: Iterable[str]) -> Iterator[tuple[str, int, os.stat_result]]:
        """Open these files one after the other; what cannot be opened is skipped."""
        with safe_open.DirCursor(safe_open.open_workspace(self.workspace)) as cursor:
            for path in paths:
                self.check()
                try:
                    parent, name = cursor.parent_of(path)
                    descriptor, status = safe_open.open_file(name, parent)
                except OSError:
                    continue
                try:
                    yield path, descriptor, status
                finally:
                    os.close(descriptor)

    def _digest(self, path: str, descriptor: int, status: os.stat_result) -> Entry | None:
        entry, read_at_ns = file_entry(status), wall_ns(self.clock)
        digest, search = hashlib.sha256(), search_in(self.search, path, entry.size_bytes)
        for piece in pieces(descriptor, entry.size_bytes, self.check):
            if search(piece) is not None:
                return None
            digest.update(piece)
        unchanged = matches_status(entry, os.fstat(descriptor))
        return as_read(entry, digest.digest(), read_at_ns) if unchanged else None
