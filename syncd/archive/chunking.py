"""Divides the archive into chunks, each of which is compressed and stored by itself.

A hash of a path decides if a chunk ends after it; the more bytes the path adds, the likelier that is. So chunks have
`TARGET_BYTES` on average, and adding or removing a file moves no boundary but its own; the chunks around it stay the
same. A large file is a chunk of its own.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence

from syncd.scan.entry import Entry, Kind, content_bytes, count_files

TARGET_BYTES = 512 << 10
# A chunk that no hash ends is ended at this size, to bound memory.
LARGEST_BYTES = 4 * TARGET_BYTES
_BLOCK = 512
_HASHES = 1 << 32


class Chunk:
    """Consecutive paths with their entries. `key` is cached, since most chunks are the same in the next snapshot."""

    __slots__ = ("_closed", "_key", "content_bytes", "entries", "files", "paths")

    def __init__(self, paths: list[str], entries: list[Entry]) -> None:
        self.paths = paths
        self.entries = entries
        self.content_bytes = content_bytes(entries)
        self.files = count_files(entries)
        # True if the chunk ends by its last path's hash, whatever follows; other chunks depend on what follows.
        self._closed = _ends_chunk(paths[-1], _BLOCK + entries[-1].size_bytes)
        self._key: tuple[str, str | None] | None = None

    def is_unchanged(self, paths: Sequence[str], entries: Sequence[Entry], start: int) -> bool:
        """True if dividing these paths and entries at `start` would give this same chunk."""
        end = start + len(self.paths)
        return self._closed and paths[start:end] == self.paths and entries[start:end] == self.entries

    def key(self, form: str) -> str | None:
        """The chunk's key: see `chunk_key`."""
        if self._key is None or self._key[0] != form:
            self._key = form, chunk_key(self.paths, self.entries, form)
        return self._key[1]


def split(manifest: Mapping[str, Entry], before: Sequence[Chunk] = ()) -> list[Chunk]:
    """Divide the manifest into chunks, in its order; unchanged chunks of an earlier division are reused."""
    paths: list[str] = []
    entries: list[Entry] = []
    for path, entry in manifest.items():
        paths.append(path)
        entries.append(entry)
    known = {chunk.paths[0]: chunk for chunk in before}
    chunks = []
    start = 0
    while start < len(paths):
        chunk = known.get(paths[start])
        if chunk is None or not chunk.is_unchanged(paths, entries, start):
            end = _end(paths, entries, start)
            chunk = Chunk(paths[start:end], entries[start:end])
        chunks.append(chunk)
        start += len(chunk.paths)
    return chunks


def _end(paths: Sequence[str], entries: Sequence[Entry], start: int) -> int:
    """The index after the last path of the chunk that starts at `start`."""
    chunk_bytes = 0
    for at in range(start, len(paths)):
        weight = _BLOCK + entries[at].size_bytes
        if at > start and (weight >= TARGET_BYTES or chunk_bytes + weight > LARGEST_BYTES):
            return at
        if _ends_chunk(paths[at], weight):
            return at + 1
        chunk_bytes += weight
    return len(paths)


def _ends_chunk(path: str, weight: int) -> bool:
    return zlib.crc32(path.encode("utf-8", "surrogateescape")) * TARGET_BYTES < weight * _HASHES


def chunk_key(paths: Sequence[str], entries: Sequence[Entry], form: str) -> str | None:
    """A digest of all that goes into a chunk: the fields of its headers, and the digests of its contents.

    `form` names the compression. None if any content is unknown: such a chunk must be read.
    """
    components = [form]
    for path, entry in zip(paths, entries, strict=True):
        if entry.kind is Kind.FILE and not entry.digest:
            return None
        header = f"{entry.kind}{entry.mode:o} {entry.mtime_s} {entry.size_bytes} {entry.target}"
        components.append(f"{path}\0{header}\0{entry.digest.hex()}")
    return hashlib.sha256("\0\n".join(components).encode("utf-8", "surrogateescape")).hexdigest()
