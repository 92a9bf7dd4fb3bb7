"""Stores compressed chunks in the spool from one snapshot to the next, so that a snapshot costs what changed.

An archive is one gzip member that is assembled from them while it is sent.

A chunk is consecutive paths with their entries. A hash of a path decides if a chunk ends after it; the more bytes the
path adds, the likelier that is. So chunks have `TARGET_BYTES` on average, and adding or removing a file moves no
boundary but its own; the chunks around it stay the same. A large file is a chunk of its own.

A chunk is one file, named by its key, which stands for exactly one content. Nothing is flushed to the disk: after a
power cut a file may be short or wrong, so each ends with its key and checksums, which are verified when it is reused
and again when it is sent. A damaged chunk is made again, never sent. Other programs may clear the folder or put
something there at any time: what is in the way is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from io import FileIO
from itertools import chain

from msgspec import Struct
from msgspec.structs import replace

from syncd.archive import archive_format
from syncd.archive.archive_format import Sum
from syncd.core import safe_open
from syncd.core.checksum import crc32c
from syncd.model.entry import Entry, Kind

TARGET_BYTES = 512 << 10
# A chunk that no hash ends is ended at this size, to bound memory.
LARGEST_CHUNK_BYTES = 4 * TARGET_BYTES
_BLOCK = 512
_HASHES = 1 << 32


def key_of(chunk: Mapping[str, Entry]) -> str | None:
    """Return a digest of all that goes into the chunk: compression, fields of headers, digests of contents.

    None if any content is unknown: such a chunk must be read.
    """
    components = ["deflate"]
    for path, entry in chunk.items():
        if entry.kind is Kind.FILE and not entry.digest:
            return None
        header = f"{entry.kind}{entry.mode:o} {entry.mtime_s} {entry.size_bytes} {entry.target}"
        components.append(f"{path}\0{header}\0{entry.digest.hex()}")
    return hashlib.sha256("\0\n".join(components).encode("utf-8", "surrogateescape")).hexdigest()


def split(manifest: Iterable[tuple[str, Entry]]) -> Iterator[dict[str, Entry]]:
    """Divide the manifest, paths with their entries, into chunks, in its order; one chunk is in memory at a time."""
    chunk: dict[str, Entry] = {}
    chunk_bytes = 0
    for path, entry in manifest:
        weight = _BLOCK + entry.size_bytes
        if chunk and (weight >= TARGET_BYTES or chunk_bytes + weight > LARGEST_CHUNK_BYTES):
            yield chunk
            chunk, chunk_bytes = {}, 0
        chunk[path] = entry
        chunk_bytes += weight
        if zlib.crc32(path.encode("utf-8", "surrogateescape")) * TARGET_BYTES < weight * _HASHES:
            yield chunk
            chunk, chunk_bytes = {}, 0
    if chunk:
        yield chunk


_SUFFIX = ".chunk"
_UNFINISHED = ".loose"
# After the compressed bytes: the key, their number, their CRC-32C, and length and CRC-32 of their content. The last
# field is the CRC-32C of the others.
_FOOTER = struct.Struct("<8s32sQIQI")
_SEAL = struct.Struct("<I")
_FOOTER_BYTES = _FOOTER.size + _SEAL.size
_MAGIC = b"syncdch2"
# The size of one read, whose bytes are then cut into the blocks that are sent.
_READ_BYTES = 1 << 20


class Piece(Struct, frozen=True):
    """Compressed bytes in a file of the spool. `key` is empty if they are stored for one archive only."""

    path: str
    key: str
    size_bytes: int
    crc32c: int
    content: Sum


class DamagedPiece(Exception):
    """A piece in the spool is missing, or its bytes are not those that were written."""

    def __init__(self, piece: Piece) -> None:
        super().__init__(f"a stored part of the archive is damaged ({os.path.basename(piece.path)[:12]}…)")


class Archive(Struct, frozen=True):
    """The pieces in order, and the bytes that follow the last of them.

    Its length is known beforehand, as a signed upload requires, and it can be sent any number of times.
    """

    pieces: tuple[Piece, ...] = ()
    end: bytes = b""
    size_bytes: int = 0

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Archive:
        pieces = tuple(pieces)
        content = Sum()
        for piece in pieces:
            content = content.then(piece.content)
        last, last_sum = archive_format.deflated(archive_format.trailer(content.size_bytes))
        end = last + archive_format.tail(content.then(last_sum))
        return cls(pieces, end, len(archive_format.HEAD) + sum(piece.size_bytes for piece in pieces) + len(end))

    def blocks(self, block_bytes: int) -> Iterator[bytes]:
        """The archive's bytes in blocks of this size; the last may be shorter. Raises `DamagedPiece`."""
        rest = archive_format.HEAD
        for read in chain(chain.from_iterable(map(_read, self.pieces)), [self.end]):
            rest += read
            whole = len(rest) - len(rest) % block_bytes
            for start in range(0, whole, block_bytes):
                yield rest[start : start + block_bytes]
            rest = rest[whole:]
        if rest:
            yield rest


class ChunkStore:
    """The chunks of one workspace's last snapshot. The caller must hold the workspace's lock."""

    def __init__(self, folder: str) -> None:
        self._folder = os.path.join(folder, "chunks")
        self._known: dict[str, Piece] = {}
        self._created = 0
        self._in_use: dict[str, frozenset[str]] = {}  # the names of files, by whoever still sends them

    def open(self) -> None:
        """Create the folder and remove what a killed process left. If this fails, so does the first write."""
        if os.path.islink(self._folder) or not os.path.isdir(self._folder):
            _remove(self._folder)  # through a link the files of another folder would be removed
        with contextlib.suppress(OSError):
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            for name in os.listdir(self._folder):
                if not name.endswith(_SUFFIX):
                    _remove(os.path.join(self._folder, name))

    def get(self, key: str) -> Piece | None:
        """The stored piece of that key, if its footer is valid."""
        piece = self._known.get(key)
        if piece is None:
            piece = self._load(key)
            if piece is not None:
                self._known[key] = piece
        return piece

    def create(self) -> tuple[str, FileIO]:
        """Create a file for a piece, whose key is known only when it is finished. Raises `OSError`."""
        self._created += 1
        path = os.path.join(self._folder, f"{self._created}{_UNFINISHED}")
        if not os.path.isdir(self._folder):
            self.open()  # removed while this process runs
        _remove(path)
        return path, FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")

    def add(self, file: FileIO, written: Piece) -> Piece:
        """Write the footer and close the file, which gets the name of its key if it has one. Raises `OSError`."""
        safe_open.write_all(file.fileno(), _footer(written))
        file.close()
        if not written.key:
            return written
        piece = replace(written, path=self._path(written.key))
        try:
            os.replace(written.path, piece.path)
        except IsADirectoryError:
            _remove(piece.path)
            os.replace(written.path, piece.path)
        self._known[piece.key] = piece
        return piece

    def use(self, user: str, pieces: Iterable[Piece]) -> None:
        """Keep these pieces whatever is deleted, and no more those that this user named before."""
        self._in_use[user] = frozenset(os.path.basename(piece.path) for piece in pieces)

    def keep_only(self, pieces: Iterable[Piece]) -> None:
        """Delete all other pieces, but for those in use."""
        wanted = {os.path.basename(piece.path) for piece in pieces}.union(*self._in_use.values())
        with contextlib.suppress(OSError):
            for name in os.listdir(self._folder):
                if name not in wanted:
                    _remove(os.path.join(self._folder, name))
        self._known = {key: piece for key, piece in self._known.items() if key + _SUFFIX in wanted}

    def clear(self) -> None:
        """Delete all pieces, also those in use."""
        self._in_use = {}
        self.keep_only(())

    def _path(self, key: str) -> str:
        return os.path.join(self._folder, key + _SUFFIX)

    def _load(self, key: str) -> Piece | None:
        path = self._path(key)
        try:
            with _opened(path) as file:
                size_bytes = os.fstat(file.fileno()).st_size - _FOOTER_BYTES
                footer = os.pread(file.fileno(), _FOOTER_BYTES, size_bytes) if size_bytes >= 0 else b""
        except FileNotFoundError:
            return None
        except OSError:
            footer = b""
        if len(footer) == _FOOTER_BYTES:
            _, _, said_bytes, checksum, content_bytes, crc32 = _FOOTER.unpack(footer[: _FOOTER.size])
            piece = Piece(path, key, said_bytes, checksum, Sum(content_bytes, crc32))
            if said_bytes == size_bytes and footer == _footer(piece):
                return piece
        _remove(path)
        return None


def _opened(path: str) -> FileIO:
    """Open a file of the spool for reading. Follows no link and waits for no FIFO. Raises `OSError`."""
    return FileIO(safe_open.open_file(path, None)[0], "rb")


def _footer(piece: Piece) -> bytes:
    key = bytes.fromhex(piece.key)
    fields = _FOOTER.pack(_MAGIC, key, piece.size_bytes, piece.crc32c, piece.content.size_bytes, piece.content.crc32)
    return fields + _SEAL.pack(crc32c(fields))


def _read(piece: Piece) -> Iterator[bytes]:
    """The piece's bytes; the last ones come only after the checksum of all is verified."""
    checksum = 0
    try:
        with _opened(piece.path) as file:
            left = piece.size_bytes
            while left:
                read = file.read(min(_READ_BYTES, left))
                if not read:
                    raise DamagedPiece(piece)
                left -= len(read)
                checksum = crc32c(read, checksum)
                if not left and checksum != piece.crc32c:
                    raise DamagedPiece(piece)
                yield read
    except OSError:
        raise DamagedPiece(piece) from None


def _remove(path: str) -> None:
    """Remove a file, a link or a folder, as far as possible."""
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
