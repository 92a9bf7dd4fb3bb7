"""Compressed chunks kept in the spool from one snapshot to the next, so that a snapshot costs what changed.

A chunk is one file, named by its key (`policy.chunking`), which holds for exactly one content. Nothing is flushed to
the disk: after a power cut a file may be short or wrong, so each carries checksums, is looked at when it is taken, and
is checked again as its bytes go out. A damaged one is made anew, never sent.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

import google_crc32c

from syncd.effects.deflate import Sum

_SUFFIX = ".chunk"
_LOOSE = ".loose"
# Behind the deflated bytes: how many they are, their CRC-32C, and length and CRC-32 of what they hold.
_FOOT = struct.Struct("<8sQIQI")
_MAGIC = b"syncdchk"


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
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by finish or discard
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
        foot = (_MAGIC, self._size_bytes, self._crc32c, self._content.size_bytes, self._content.crc32)
        try:
            _write_all(self._file.fileno(), _FOOT.pack(*foot))
        except OSError:
            self.discard()
            raise
        self._file.close()
        return self._store.take_in(Piece(self._path, key or "", self._size_bytes, self._crc32c, self._content))

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
        with contextlib.suppress(OSError):
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            for name in os.listdir(self._folder):
                if not name.endswith(_SUFFIX):
                    os.unlink(os.path.join(self._folder, name))

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
        return PieceWriter(os.path.join(self._folder, f"{self._writers}{_LOOSE}"), self)

    def take_in(self, written: Piece) -> Piece:
        """Give a written piece the name of its key, if it has one. Raises `OSError`."""
        if not written.key:
            return written
        piece = replace(written, path=self._path(written.key))
        os.replace(written.path, piece.path)
        self._known[piece.key] = piece
        return piece

    def drop(self, piece: Piece) -> None:
        """The piece is damaged."""
        self._known.pop(piece.key, None)
        with contextlib.suppress(OSError):
            os.unlink(piece.path)

    def keep_only(self, pieces: Iterable[Piece]) -> None:
        """Give back the disk space of all other pieces."""
        wanted = {os.path.basename(piece.path) for piece in pieces}
        with contextlib.suppress(OSError):
            for name in os.listdir(self._folder):
                if name not in wanted:
                    os.unlink(os.path.join(self._folder, name))
        self._known = {key: piece for key, piece in self._known.items() if key + _SUFFIX in wanted}

    def _path(self, key: str) -> str:
        return os.path.join(self._folder, key + _SUFFIX)

    def _load(self, key: str) -> Piece | None:
        path = self._path(key)
        try:
            with open(path, "rb", buffering=0) as file:
                size_bytes = os.fstat(file.fileno()).st_size - _FOOT.size
                foot = os.pread(file.fileno(), _FOOT.size, size_bytes) if size_bytes >= 0 else b""
        except OSError:
            return None
        if len(foot) == _FOOT.size:
            magic, said_bytes, crc32c, content_bytes, crc32 = _FOOT.unpack(foot)
            if magic == _MAGIC and said_bytes == size_bytes:
                return Piece(path, key, size_bytes, crc32c, Sum(content_bytes, crc32))
        with contextlib.suppress(OSError):
            os.unlink(path)
        return None


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
