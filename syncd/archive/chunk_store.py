"""Compressed chunks kept in the spool from one snapshot to the next, so that a snapshot costs what changed.

A chunk is one file, named by its key (`policy.chunking`), which holds for exactly one content. Nothing is flushed to
the disk: after a power cut a file may be short or wrong, so each carries its key and checksums, is looked at when it is
taken, and is checked again as its bytes go out. A damaged one is made anew, never sent. Anyone may clean the folder up
or put something else there, at any time: what is in the way goes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from io import FileIO

import google_crc32c

from syncd.archive.deflate import Sum
from syncd.selection import safe_open

_SUFFIX = ".chunk"
_LOOSE = ".loose"
# Behind the deflated bytes: the key, how many they are, their CRC-32C, and length and CRC-32 of what they hold. The
# last field is the CRC-32C of the others.
_FOOT = struct.Struct("<8s32sQIQI")
_SEAL = struct.Struct("<I")
_FOOT_BYTES = _FOOT.size + _SEAL.size
_MAGIC = b"syncdch2"
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Piece:
    """Deflated bytes in a file of the spool. `key` is empty where they are kept for one archive only."""

    path: str
    key: str
    size_bytes: int
    crc32c: int
    content: Sum


class PieceWriter:
    """Writes one piece, block by block, as the blocks come from the compressor."""

    def __init__(self, path: str, store: ChunkStore) -> None:
        self._path = path
        self._store = store
        self._file = os.fdopen(_opened_new(path), "wb", buffering=0)  # closed by finish or discard
        self._size_bytes = 0
        self._crc32c = 0
        self._content = Sum()

    def add(self, deflated: bytes, content: Sum) -> None:
        """Append a block. Raises `OSError` (a full disk)."""
        _write_all(self._file.fileno(), deflated)
        self._size_bytes += len(deflated)
        self._crc32c = google_crc32c.extend(self._crc32c, deflated)
        self._content = self._content.then(content)

    def finish(self, key: str | None) -> Piece:
        """Keep the piece under its key, or for one archive only. Raises `OSError`."""
        piece = Piece(self._path, key or "", self._size_bytes, self._crc32c, self._content)
        try:
            _write_all(self._file.fileno(), _foot(piece))
        except OSError:
            self.discard()
            raise
        self._file.close()
        return self._store.take_in(piece)

    def discard(self) -> None:
        """It will not be finished."""
        self._file.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)


class ChunkStore:
    """The chunks of one workspace's last snapshot. Only for who holds the workspace's lock."""

    def __init__(self, folder: str) -> None:
        self._folder = os.path.join(folder, "chunks")
        self._known: dict[str, Piece] = {}
        self._writers = 0

    def open(self) -> None:
        """Make the folder; take away what a killed process left unfinished. Where it fails, so will the first write."""
        if os.path.islink(self._folder) or not os.path.isdir(self._folder):
            _remove(self._folder)  # a link would lead the cleaning-up to someone's files
        with contextlib.suppress(OSError):
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            for name in os.listdir(self._folder):
                if not name.endswith(_SUFFIX):
                    _remove(os.path.join(self._folder, name))

    def get(self, key: str) -> Piece | None:
        """The kept piece of that key, if it looks whole."""
        piece = self._known.get(key)
        if piece is None:
            piece = self._load(key)
            if piece is not None:
                self._known[key] = piece
        return piece

    def writer(self) -> PieceWriter:
        """For a piece whose key shows only once it is read. Raises `OSError`."""
        self._writers += 1
        path = os.path.join(self._folder, f"{self._writers}{_LOOSE}")
        if not os.path.isdir(self._folder):
            self.open()  # taken away while this process runs
        return PieceWriter(path, self)

    def take_in(self, written: Piece) -> Piece:
        """Give a written piece the name of its key, if it has one. Raises `OSError`."""
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

    def drop(self, piece: Piece) -> None:
        """The piece is damaged."""
        self._known.pop(piece.key, None)
        _remove(piece.path)

    def drop_damaged(self, check: Callable[[], None]) -> None:
        """Read all known pieces, and drop those that are damaged. What takes one often takes many, and each that only
        shows as it goes out costs the upload so far.
        """
        for piece in list(self._known.values()):
            check()
            if not _whole(piece):
                self.drop(piece)

    def keep_only(self, pieces: Iterable[Piece]) -> None:
        """Give back the disk space of all other pieces."""
        wanted = {os.path.basename(piece.path) for piece in pieces}
        with contextlib.suppress(OSError):
            for name in os.listdir(self._folder):
                if name not in wanted:
                    _remove(os.path.join(self._folder, name))
        self._known = {key: piece for key, piece in self._known.items() if key + _SUFFIX in wanted}

    def _path(self, key: str) -> str:
        return os.path.join(self._folder, key + _SUFFIX)

    def _load(self, key: str) -> Piece | None:
        path = self._path(key)
        try:
            with opened(path) as file:
                size_bytes = os.fstat(file.fileno()).st_size - _FOOT_BYTES
                foot = os.pread(file.fileno(), _FOOT_BYTES, size_bytes) if size_bytes >= 0 else b""
        except FileNotFoundError:
            return None
        except OSError:
            foot = b""
        if len(foot) == _FOOT_BYTES:
            _, _, said_bytes, crc32c, content_bytes, crc32 = _FOOT.unpack(foot[: _FOOT.size])
            piece = Piece(path, key, said_bytes, crc32c, Sum(content_bytes, crc32))
            if said_bytes == size_bytes and foot == _foot(piece):
                return piece
        _remove(path)
        return None


def opened(path: str) -> FileIO:
    """A file of the spool, for reading; never a link, and no FIFO is waited for. Raises `OSError`."""
    return FileIO(safe_open.open_file(path, None)[0], "rb")


def _opened_new(path: str) -> int:
    """A file that was not there, and whatever was is gone: a link's target would be overwritten. Raises `OSError`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        _remove(path)
        return os.open(path, flags, 0o600)


def _foot(piece: Piece) -> bytes:
    key = bytes.fromhex(piece.key)
    fields = _FOOT.pack(_MAGIC, key, piece.size_bytes, piece.crc32c, piece.content.size_bytes, piece.content.crc32)
    return fields + _SEAL.pack(google_crc32c.value(fields))


def _whole(piece: Piece) -> bool:
    """Whether the file still begins with the bytes that were written to it."""
    crc32c = 0
    try:
        with opened(piece.path) as file:
            left = piece.size_bytes
            while left and (read := file.read(min(_READ_BYTES, left))):
                crc32c = google_crc32c.extend(crc32c, read)
                left -= len(read)
    except OSError:
        return False
    return not left and crc32c == piece.crc32c


def _remove(path: str) -> None:
    """Take away whatever lies there, as far as that is possible."""
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
