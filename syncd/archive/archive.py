"""A finished archive: one gzip member, put together from pieces in the spool while it is sent.

Its length is known beforehand, as a signed upload demands; it can be sent any number of times. Each piece is checked on
its way out: other bytes than were written are never all sent.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import google_crc32c

from syncd.archive import tar_format
from syncd.archive.chunk_store import Piece, opened
from syncd.archive.codec import Codec
from syncd.archive.deflate import HEAD, Sum, deflated, tail

# A read of a piece, before it is cut into the blocks that are sent.
_READ_BYTES = 1 << 20


class DamagedPiece(Exception):
    """A piece in the spool is gone or holds other bytes than were written to it."""

    def __init__(self, piece: Piece) -> None:
        super().__init__(f"a kept part of the archive is damaged ({os.path.basename(piece.path)[:12]}…)")
        self.piece = piece


@dataclass(frozen=True)
class Archive:
    """The pieces in order, and what follows the last of them."""

    pieces: tuple[Piece, ...] = ()
    end: bytes = b""
    size_bytes: int = 0

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Archive:
        """The archive of these pieces of a tar."""
        pieces = tuple(pieces)
        content = Sum()
        for piece in pieces:
            content = content.then(piece.content)
        last, last_sum = deflated(tar_format.trailer(content.size_bytes), Codec.FAST)
        end = last + tail(content.then(last_sum))
        return cls(pieces, end, len(HEAD) + sum(piece.size_bytes for piece in pieces) + len(end))

    @property
    def identity(self) -> str:
        """A name for all that is in it, by which a later process knows it again; empty if some content is unsure."""
        if not all(piece.key for piece in self.pieces):
            return ""
        return hashlib.sha256("".join(piece.key for piece in self.pieces).encode()).hexdigest()

    def blocks(self, block_bytes: int) -> Iterator[bytes]:
        """The archive's bytes from the start, so many at a time. Raises `DamagedPiece`."""
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
    """The piece's bytes; the last of them only once all have proved right."""
    crc32c = 0
    try:
        with opened(piece.path) as file:
            left = piece.size_bytes
            while left:
                read = file.read(min(_READ_BYTES, left))
                if not read:
                    raise DamagedPiece(piece)
                left -= len(read)
                crc32c = google_crc32c.extend(crc32c, read)
                if not left and crc32c != piece.crc32c:
                    raise DamagedPiece(piece)
                yield read
    except OSError:
        raise DamagedPiece(piece) from None
