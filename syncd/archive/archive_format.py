"""The archive's bytes: the headers of a POSIX tar, made from a manifest's entries, in one gzip member.

A header is one 512-byte ustar block (POSIX.1-1988), whose names are bytes without any conversion. Where a value does
not fit its field, `tarfile` adds pax records (POSIX.1-2001): a long name or link target, a size of 8 GiB and more, a
time before 1970 or after 2242. It takes ten times as long. User and group are 0 without names, so that the same tree
gives the same bytes on every machine.

Pieces of the member are compressed independently. Each is raw deflate data that ends at a sync flush, on a byte
boundary and without a last block, so that any number of them can follow one another. An empty last block and the
combined checksum end the member (RFC 1951, 3.2.4; RFC 1952, 2.3). There is one member only, since some readers stop
after the first of several.
"""

from __future__ import annotations

import os
import struct
import tarfile
import zlib

from isal import isal_zlib
from msgspec import Struct

from syncd.model.entry import Entry, Kind

LEVEL = 2  # of isal's 0 to 3
_RAW = -15
HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK = b"\x03\x00"

BLOCK = 512
# Archives end with two blocks of zeros, filled up to a record of 20 blocks: the unit of tape drives (tar(5)).
RECORD = 20 * BLOCK

_NAME = 100
_PREFIX = 155
_LARGEST_SIZE = 0o77777777777
_LATEST_TIME = 0o77777777777
_DIRECTORY = b"5"
_TYPES = {Kind.FILE: b"0", Kind.SYMLINK: b"2", Kind.DIRECTORY: _DIRECTORY}


def headers(path: str, entry: Entry, size_bytes: int) -> bytes:
    """The block or blocks before `size_bytes` of content."""
    name = path.encode("utf-8", "surrogateescape")
    kind = _TYPES[entry.kind]
    if kind == _DIRECTORY:
        name += b"/"
    target = os.fsencode(entry.target) if entry.target else b""
    fields = _split(name)
    fits = size_bytes <= _LARGEST_SIZE and 0 <= entry.mtime_s <= _LATEST_TIME and len(target) <= _NAME
    if fields is None or not fits:
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.mtime = kind, entry.mode, entry.mtime_s
        info.size, info.linkname = size_bytes, entry.target
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    prefix, last = fields
    back = _back(target, prefix) if target or prefix else _PLAIN_BACK
    return _block(last, entry.mode, size_bytes, entry.mtime_s, kind, back=back)


def padding(size_bytes: int) -> bytes:
    """The zeros that fill content up to a multiple of a block."""
    return bytes(-size_bytes % BLOCK)


def trailer(archive_bytes: int) -> bytes:
    """The end of an archive that has this many bytes so far."""
    end = 2 * BLOCK
    return bytes(end + -(archive_bytes + end) % RECORD)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """The name as (prefix, name) of a ustar header, whose slash between both is not stored; None if it does not fit."""
    if len(name) <= _NAME:
        return b"", name
    if len(name) > _PREFIX + 1 + _NAME:
        return None
    cut = name.find(b"/", len(name) - _NAME - 1, len(name) - 1)
    return (name[:cut], name[cut + 1 :]) if 0 < cut <= _PREFIX else None


def _back(target: bytes, prefix: bytes) -> bytes:
    """The bytes after the kind in a header's block."""
    return b"".join(
        (
            target.ljust(_NAME, b"\0"),
            b"ustar\x0000",
            bytes(64),
            b"0000000\x000000000\x00",
            prefix.ljust(_PREFIX, b"\0"),
            bytes(12),
        )
    )


_PLAIN_BACK = _back(b"", b"")
_PLAIN_SUM = sum(_PLAIN_BACK)
# The checksum counts its own field as eight spaces.
_FIELD_SUM = 8 * 0x20


def _block(name: bytes, mode: int, size_bytes: int, mtime_s: int, kind: bytes, *, back: bytes) -> bytes:
    numbers = b"%07o\x000000000\x000000000\x00%011o\x00%011o\x00" % (mode, size_bytes, mtime_s)
    front = name.ljust(_NAME, b"\0") + numbers
    # The low half of an Adler-32 is 1 and the sum of at most 256 bytes (RFC 1950), in a tenth of the time of `sum`.
    front_sum = (zlib.adler32(front) & 0xFFFF) - 1
    back_sum = _PLAIN_SUM if back is _PLAIN_BACK else sum(back)
    return b"%b%06o\0 %b%b" % (front, front_sum + _FIELD_SUM + kind[0] + back_sum, kind, back)


class Sum(Struct, frozen=True):
    """Length and CRC-32 of uncompressed bytes; the sums of consecutive pieces can be combined."""

    size_bytes: int = 0
    crc32: int = 0

    def then(self, following: Sum) -> Sum:
        """The sum of these bytes and the ones that follow them."""
        crc32 = isal_zlib.crc32_combine(self.crc32, following.crc32, following.size_bytes)
        return Sum(self.size_bytes + following.size_bytes, crc32)


def deflated(block: bytes) -> tuple[bytes, Sum]:
    """The compressed block, and the sum of its content. Releases the interpreter's lock while it works."""
    compressor = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, _RAW)
    piece: bytes = compressor.compress(block) + compressor.flush(isal_zlib.Z_SYNC_FLUSH)
    return piece, Sum(len(block), isal_zlib.crc32(block))


def tail(whole: Sum) -> bytes:
    """The bytes that end the member."""
    return _LAST_BLOCK + struct.pack("<II", whole.crc32, whole.size_bytes & 0xFFFFFFFF)
