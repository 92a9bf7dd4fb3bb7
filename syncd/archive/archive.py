"""A finished archive: one gzip member that is assembled from pieces in the spool while it is sent.

Its length is known beforehand, as a signed upload requires, and it can be sent any number of times. Each piece is
checked while it is read: a piece whose bytes are not those that were written is never sent completely.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator

from msgspec import Struct

from syncd.archive import tar_format
from syncd.archive.chunk_store import Piece, opened
from syncd.archive.codec import Codec
from syncd.archive.deflate import HEAD, Sum, deflated, tail
from syncd.core.checksum import crc32c

# The size of one read, whose bytes are then cut into the blocks that are sent.
_READ_BYTES = 1 << 20


class DamagedPiece(Exception):
    """A piece in the spool is missing, or its bytes are not those that were written."""

    def __init__(self, piece: Piece) -> None:
        super().__init__(f"a stored part of the archive is damaged ({os.path.basename(piece.path)[:12]}…)")
        self.piece = piece


class Archive(Struct, frozen=True):
    """The pieces in order, and the bytes that follow the last of them."""

    pieces: tuple[Piece, ...] = ()
    end: bytes = b""
    size_bytes: int = 0

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Archive:
        """The archive of these pieces of a tar file."""
        pieces = tuple(pieces)
        content = Sum()
        for piece in pieces:
            content = content.then(piece.content)
        last, last_sum = deflated(tar_format.trailer(content.size_bytes), Codec.FAST)
        end = last + tail(content.then(last_sum))
        return cls(pieces, end, len(HEAD) + sum(piece.size_bytes for piece in pieces) + len(end))

    @property
    def identity(self) -> str:
        """A digest by which a later process recognizes the archive; empty if any content is unknown."""
        if not all(piece.key for piece in self.pieces):
            return ""
        return hashlib.sha256("".join(piece.key for piece in self.pieces).encode()).hexdigest()

    def blocks(self, block_bytes: int) -> Iterator[bytes]:
        """The archive's bytes in blocks of this size; the last may be shorter. Raises `DamagedPiece`."""
        rest = HEAD
        for piece in self.pieces:
            for read in _read(piece):
                rest += read
                whole = len(rest) - len(rest) % block_bytes
                for start in range(0, whole, block_bytes):
                    yield rest[start : start + block_bytes]
                rest = rest[whole:]
        rest += self.end
        for start in range(0, len(rest), block_bytes):
            yield rest[start : start + block_bytes]


def _read(piece: Piece) -> Iterator[bytes]:
    """The piece's bytes; the last ones come only after the checksum of all is verified."""
    checksum = 0
    try:
        with opened(piece.path) as file:
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
