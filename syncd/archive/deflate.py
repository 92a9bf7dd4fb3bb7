"""Compresses pieces of one gzip member independently, so that they can be joined.

A piece is raw deflate data that ends at a sync flush, on a byte boundary and without a last block, so that any number
of pieces can follow one another. An empty last block and the combined checksum end the member (RFC 1951, 3.2.4; RFC
1952, 2.3). There is one member only, since some readers stop after the first of several.
"""

from __future__ import annotations

import struct
from typing import Any

from isal import isal_zlib
from msgspec import Struct

from syncd.archive.codec import DENSE_LEVEL, FAST_LEVEL, Codec

_RAW = -15

HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK = b"\x03\x00"


class Sum(Struct, frozen=True):
    """Length and CRC-32 of uncompressed bytes; the sums of consecutive pieces can be combined."""

    size_bytes: int = 0
    crc32: int = 0

    def then(self, following: Sum) -> Sum:
        """The sum of these bytes and the ones that follow them."""
        crc32 = isal_zlib.crc32_combine(self.crc32, following.crc32, following.size_bytes)
        return Sum(self.size_bytes + following.size_bytes, crc32)


def form(codec: Codec) -> str:
    """The name of format and codec in the keys of stored pieces."""
    return f"deflate {codec.value}"


def deflated(block: bytes | memoryview, codec: Codec) -> tuple[bytes, Sum]:
    """The compressed block, and the sum of its content. Releases the interpreter's lock while it works."""
    compressor = _compressor(codec)
    piece: bytes = compressor.compress(block) + compressor.flush(isal_zlib.Z_SYNC_FLUSH)
    return piece, Sum(len(block), isal_zlib.crc32(block))


def _compressor(codec: Codec) -> Any:
    if codec is Codec.FAST:
        return isal_zlib.compressobj(FAST_LEVEL, isal_zlib.DEFLATED, _RAW)
    from zlib_ng import zlib_ng  # noqa: PLC0415 - only where the uplink is slow

    return zlib_ng.compressobj(DENSE_LEVEL, zlib_ng.DEFLATED, _RAW)


def tail(whole: Sum) -> bytes:
    """The bytes that end the member."""
    return _LAST_BLOCK + struct.pack("<II", whole.crc32, whole.size_bytes & 0xFFFFFFFF)
