"""Divides the archive into chunks, each of which is compressed and stored by itself, in one of two ways.

A chunk is a dictionary of consecutive paths with their entries.

A hash of a path decides if a chunk ends after it; the more bytes the path adds, the likelier that is. So chunks have
`TARGET_BYTES` on average, and adding or removing a file moves no boundary but its own; the chunks around it stay the
same. A large file is a chunk of its own.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum

from syncd.model.entry import Entry, Kind

TARGET_BYTES = 512 << 10
# A chunk that no hash ends is ended at this size, to bound memory.
LARGEST_BYTES = 4 * TARGET_BYTES
_BLOCK = 512
_HASHES = 1 << 32


class Codec(Enum):
    """A compression: fast, or smaller; `remote.uplink` chooses between them."""

    FAST = "fast"
    DENSE = "dense"


def key_of(chunk: Mapping[str, Entry], codec: Codec) -> str | None:
    """Return a digest of all that goes into the chunk: compression, fields of headers, digests of contents.

    None if any content is unknown: such a chunk must be read.
    """
    components = [f"deflate {codec.value}"]
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
        if chunk and (weight >= TARGET_BYTES or chunk_bytes + weight > LARGEST_BYTES):
            yield chunk
            chunk, chunk_bytes = {}, 0
        chunk[path] = entry
        chunk_bytes += weight
        if zlib.crc32(path.encode("utf-8", "surrogateescape")) * TARGET_BYTES < weight * _HASHES:
            yield chunk
            chunk, chunk_bytes = {}, 0
    if chunk:
        yield chunk
