"""Packing a manifest into the archive that is uploaded: one gzip member, streamed to the spool in bounded memory.

A file is read from its directory's descriptor and looked at before and after. A small one that changed in between is
read again; a large one is already on its way into the stream, so it is named for a follow-up. Either way the archive
itself stays whole: a header promises a length, and that many bytes follow it.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

import google_crc32c
from isal import isal_zlib

from syncd.base.clock import Clock
from syncd.base.problem import Problem
from syncd.effects import descent, tar_format
from syncd.effects.scan import file_entry, unreadable
from syncd.policy.manifest import Entry, Kind, Manifest, as_read, unknown_content

# Deflate level 2 of ISA-L: five times `gzip -6`'s speed and more for a fifth more bytes.
_LEVEL = 2
_GZIP = 31
# Pieces of a large file; also what a small file may have at most to be read in one piece and, if need be, again.
_PIECE = 1 << 20
# Small writes are gathered up to this size before they are compressed.
_GATHER = 256 << 10
# A small file that changes under every one of so many reads is being written all the time.
_READS = 3
# What opening says of a path that is no longer what the scan saw.
_SWAPPED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO})


@dataclass(frozen=True)
class Archive:
    """A finished archive in the spool. Its blocks can be read any number of times, as every attempt needs."""

    file: IO[bytes]
    size_bytes: int
    sha256: str
    md5: bytes
    crc32c: bytes

    def blocks(self, block_bytes: int) -> Iterator[bytes]:
        """The archive's bytes from the start, so many at a time. Raises `OSError`."""
        offset = 0
        while offset < self.size_bytes:
            block = os.pread(self.file.fileno(), min(block_bytes, self.size_bytes - offset), offset)
            if not block:
                raise OSError("the spooled archive is shorter than it was")
            offset += len(block)
            yield block

    def close(self) -> None:
        """Give the disk space back."""
        self.file.close()


@dataclass
class Packed:
    """An archive and the manifest of what is really in it. `follow_up` names files that changed while being read."""

    archive: Archive
    manifest: Manifest
    problems: list[Problem] = field(default_factory=list)
    unread: dict[str, Entry] = field(default_factory=dict)
    follow_up: list[str] = field(default_factory=list)


class Packer:
    """Packs one workspace's manifests."""

    def __init__(self, workspace: str, clock: Clock, check: Callable[[], None] = lambda: None) -> None:
        self._workspace = workspace
        self._clock = clock
        self._check = check

    def pack(self, manifest: Manifest, spool: IO[bytes]) -> Packed:
        """Write the archive of the manifest to the spool file. Raises `OSError` (a full disk), `WorkspaceError`.

        A path that vanished or was swapped since the scan is left for a follow-up; one that cannot be read becomes a
        problem.
        """
        sink = _GzipSink(spool)
        packed = Packed(_NOTHING, {})
        with descent.Descent(descent.open_workspace(self._workspace)) as down:
            for path, entry in manifest.items():
                if entry.kind is Kind.FILE:
                    self._check()
                    self._file(packed, sink, down, path, entry)
                else:
                    sink.write(tar_format.headers(path, entry, 0))
                    packed.manifest[path] = entry
        packed.archive = sink.finish()
        return packed

    def _file(self, packed: Packed, sink: _GzipSink, down: descent.Descent, path: str, entry: Entry) -> None:
        try:
            parent, name = down.parent_of(path)
            descriptor = descent.open_file(name, parent)
        except OSError as failure:
            if failure.errno in _SWAPPED:
                packed.follow_up.append(path)
                return
            packed.problems.append(unreadable(path, failure))
            packed.unread[path] = entry
            return
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            try:
                if os.fstat(descriptor).st_size <= _PIECE:
                    self._small(packed, sink, file, path)
                else:
                    self._large(packed, sink, file, path)
            except _ReadError as failure:
                packed.problems.append(unreadable(path, failure.cause))
                packed.unread[path] = entry

    def _small(self, packed: Packed, sink: _GzipSink, file: IO[bytes], path: str) -> None:
        for _ in range(_READS):
            read_at_ns = int(self._clock.wall_s() * 1e9)
            before = file_entry(os.fstat(file.fileno()))
            file.seek(0)
            content = _read(file, _PIECE + 1)
            if file_entry(os.fstat(file.fileno())) == before and len(content) == before.size_bytes:
                entry = as_read(before, hashlib.sha256(content).digest(), read_at_ns)
                break
        else:
            # Written all the time: what was read last goes along, and another look follows.
            entry = unknown_content(before)
            packed.follow_up.append(path)
        sink.write(tar_format.headers(path, entry, len(content)))
        sink.write(content)
        sink.write(tar_format.padding(len(content)))
        packed.manifest[path] = entry

    def _large(self, packed: Packed, sink: _GzipSink, file: IO[bytes], path: str) -> None:
        read_at_ns = int(self._clock.wall_s() * 1e9)
        before = file_entry(os.fstat(file.fileno()))
        piece = _read(file, min(_PIECE, before.size_bytes))  # an unreadable file shows before its header is written
        sink.write(tar_format.headers(path, before, before.size_bytes))
        digest = hashlib.sha256()
        left = before.size_bytes
        whole = True
        while left:
            self._check()
            if not piece:
                # Cut shorter meanwhile, or the disk gave out: the header's promise is kept with zeros.
                piece, whole = bytes(min(_PIECE, left)), False
            digest.update(piece)
            sink.write(piece)
            left -= len(piece)
            if left and whole:
                try:
                    piece = _read(file, min(_PIECE, left))
                except _ReadError as failure:
                    packed.problems.append(unreadable(path, failure.cause))
                    piece = b""
            elif left:
                piece = b""
        sink.write(tar_format.padding(before.size_bytes))
        if whole and file_entry(os.fstat(file.fileno())) == before:
            packed.manifest[path] = as_read(before, digest.digest(), read_at_ns)
        else:
            packed.manifest[path] = unknown_content(before)
            packed.follow_up.append(path)

    def digests(self, paths: list[str]) -> Manifest:
        """The entries of these paths with their content's digest, read now; a path that cannot be read is left out."""
        found = {}
        with descent.Descent(descent.open_workspace(self._workspace)) as down:
            for path in paths:
                self._check()
                entry = self._digest(down, path)
                if entry is not None:
                    found[path] = entry
        return found

    def _digest(self, down: descent.Descent, path: str) -> Entry | None:
        try:
            parent, name = down.parent_of(path)
            descriptor = descent.open_file(name, parent)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            read_at_ns = int(self._clock.wall_s() * 1e9)
            before = file_entry(os.fstat(descriptor))
            digest = hashlib.sha256()
            try:
                while piece := _read(file, _PIECE):
                    self._check()
                    digest.update(piece)
            except _ReadError:
                return None
            same = file_entry(os.fstat(descriptor)) == before
            return as_read(before, digest.digest(), read_at_ns) if same else None


class _ReadError(Exception):
    """Reading a workspace's file failed, as against writing the spool."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _read(file: IO[bytes], size_bytes: int) -> bytes:
    """Up to that many bytes, fewer only at the file's end. Raises `_ReadError`."""
    try:
        content = file.read(size_bytes)
        while 0 < len(content) < size_bytes:
            more = file.read(size_bytes - len(content))
            if not more:
                break
            content += more
    except OSError as failure:
        raise _ReadError(failure) from failure
    return content


class _GzipSink:
    """Compresses what is written into one gzip member with nothing in its header that changes, and sums it up."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool
        self._deflate = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP)
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._tar_bytes = 0
        self._size_bytes = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crc32c = google_crc32c.Checksum()

    def write(self, data: bytes) -> None:
        self._tar_bytes += len(data)
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= _GATHER:
            self._compress()

    def _compress(self) -> None:
        self._put(self._deflate.compress(b"".join(self._gathered)))
        self._gathered.clear()
        self._gathered_bytes = 0

    def _put(self, block: bytes) -> None:
        if block:
            self._spool.write(block)
            self._size_bytes += len(block)
            self._sha256.update(block)
            self._md5.update(block)
            self._crc32c.update(block)

    def finish(self) -> Archive:
        """End the tar and the gzip member. The spool's bytes are then the archive."""
        self.write(tar_format.trailer(self._tar_bytes))
        self._compress()
        self._put(self._deflate.flush())
        self._spool.flush()
        return Archive(
            self._spool, self._size_bytes, self._sha256.hexdigest(), self._md5.digest(), self._crc32c.digest()
        )


_NOTHING = Archive(None, 0, "", b"", b"")  # type: ignore[arg-type]
