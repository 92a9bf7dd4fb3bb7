"""Where the archive is cut into chunks that are compressed and kept by themselves.

A boundary is drawn after a path by a hash of the path, the likelier the more bytes the path brings. So chunks are of
`TARGET_BYTES` on average, and adding or removing a file moves no boundary but its own; the chunks around it stay as
they were. A large file is a chunk of its own.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping

from syncd.policy.manifest import Entry, Kind

TARGET_BYTES = 512 << 10
# Luck may draw no boundary for long: then one is forced, to bound memory.
LARGEST_BYTES = 4 * TARGET_BYTES
_BLOCK = 512
_HASHES = 1 << 32


def chunks(manifest: Mapping[str, Entry]) -> Iterator[list[str]]:
    """The manifest's paths, in order, in runs that are one chunk each."""
    run: list[str] = []
    run_bytes = 0
    for path, entry in manifest.items():
        weight = _BLOCK + entry.size_bytes
        if run and (weight >= TARGET_BYTES or run_bytes + weight > LARGEST_BYTES):
            yield run
            run, run_bytes = [], 0
        run.append(path)
        run_bytes += weight
        if zlib.crc32(path.encode("utf-8", "surrogateescape")) * TARGET_BYTES < weight * _HASHES:
            yield run
            run, run_bytes = [], 0
    if run:
        yield run


def chunk_key(entries: Iterable[tuple[str, Entry]], form: str) -> str | None:
    """A name for the bytes of a chunk: all that goes into its headers, and its contents' digests.

    `form` names how it is compressed. None while any content is unknown: such a chunk has to be made.
    """
    parts = [form]
    for path, entry in entries:
        if entry.kind is Kind.FILE and not entry.digest:
            return None
        header = f"{entry.kind}{entry.mode:o} {entry.mtime_s} {entry.size_bytes} {entry.target}"
        parts.append(f"{path}\0{header}\0{entry.digest.hex()}")
    return hashlib.sha256("\0\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
