"""Packs a manifest into an archive: unchanged chunks are reused, the others are read and compressed.

A file is read piece by piece; a large one is a chunk of its own. If it changed meanwhile, it is read once more, and if
that gives other bytes, it is named for a follow-up. In any case as many bytes follow a header as it states.

The bytes that are searched for secrets are the very bytes that are packed. A reused chunk was made of contents with a
digest, and no content gets a digest in this module or in `scan.file_reader` before it was searched.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from msgspec import Struct, field

from syncd.archive import archive_format
from syncd.archive.archive_format import Sum, deflated
from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import Archive, ChunkStore, Piece, key_of, split
from syncd.core import safe_open
from syncd.core.checksum import crc32c
from syncd.core.clock import Clock
from syncd.core.errors import SyncWarning
from syncd.model.entry import Entry, Kind, as_read, as_sent, content_bytes, count_files
from syncd.model.manifest import Manifest
from syncd.scan.exclusions import unreadable
from syncd.scan.file_reader import PIECE_BYTES, ReadError, file_entry, matches_status, pieces, search_in, wall_ns
from syncd.selection.secret_scanner import Secret, SecretSearch

# Most chunks fit one block, and so does each piece of a file (`file_reader.PIECE_BYTES`), with its header.
BLOCK_BYTES = (1 << 20) + (64 << 10)
_MOST_THREADS = 4
# Blocks per thread that are filled and not yet written: this bounds memory.
_BLOCKS_PER_THREAD = 2


class Compressor:
    """A queue of blocks, used by one thread. On exit all of it is written, or all discarded after an exception.

    The codec releases the interpreter's lock, so that threads compress while the main thread reads. A single block is
    compressed without a pool: most saves change one chunk, and starting a pool costs more.
    """

    def __init__(self, store: ChunkStore) -> None:
        self.store = store
        self.unfinished: set[ChunkWriter] = set()
        # With the last block of a chunk, its key.
        self._queue: deque[tuple[ChunkWriter, bytes | Future[tuple[bytes, Sum]], str | None]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._threads = min(_MOST_THREADS, os.cpu_count() or 1)

    def add(self, chunk_writer: ChunkWriter, block: bytes, key: str | None = None) -> None:
        """Append a block: the last one of a chunk with its key, which may be empty.

        Raises `OSError` (a full disk) for an earlier block.
        """
        if self._pool is None and self._queue:
            self._pool = ThreadPoolExecutor(self._threads, "syncd-compress")
        while len(self._queue) >= _BLOCKS_PER_THREAD * self._threads:
            self._write_one()
        self._queue.append((chunk_writer, block if self._pool is None else self._pool.submit(deflated, block), key))

    def _write_one(self) -> None:
        chunk_writer, block, key = self._queue.popleft()
        compressed, content = block.result() if isinstance(block, Future) else deflated(block)
        if chunk_writer in self.unfinished:
            chunk_writer.append(compressed, content)
            if key is not None:
                chunk_writer.finish(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._queue:
                self._write_one()
        finally:
            for chunk_writer in [*self.unfinished]:
                chunk_writer.discard()
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)


class ChunkWriter:
    """Writes one chunk into the spool, in order; `piece` is the result.

    Each method raises `OSError` if the disk has no room for it, or for the chunks before it.
    """

    def __init__(self, compressor: Compressor) -> None:
        self._compressor = compressor
        self._parts: list[bytes] = []  # of the block that is being filled
        self._filled_bytes = 0
        self._path, self._file = compressor.store.create()  # closed by finish or discard
        compressor.unfinished.add(self)
        self._size_bytes = self._crc32c = 0
        self._content = Sum()
        self.piece: Piece  # once the chunk is written

    def write(self, *parts: bytes) -> None:
        """Write these bytes into one block, up to `BLOCK_BYTES`."""
        size_bytes = sum(map(len, parts))
        if self._filled_bytes + size_bytes > BLOCK_BYTES:
            self._hand_over()
        self._parts += parts
        self._filled_bytes += size_bytes

    def end(self, key: str | None) -> None:
        """Finish the chunk, once its blocks are written; without a key it is stored for one archive only."""
        self._hand_over(key or "")

    def _hand_over(self, key: str | None = None) -> None:
        block = b"".join(self._parts)
        self._parts, self._filled_bytes = [], 0
        self._compressor.add(self, block, key)

    def append(self, compressed: bytes, content: Sum) -> None:
        """Write a compressed block to the disk."""
        safe_open.write_all(self._file.fileno(), compressed)
        self._size_bytes += len(compressed)
        self._crc32c = crc32c(compressed, self._crc32c)
        self._content = self._content.then(content)

    def finish(self, key: str) -> None:
        """Store the piece, all of whose blocks are on the disk."""
        written = Piece(self._path, key, self._size_bytes, self._crc32c, self._content)
        self.piece = self._compressor.store.add(self._file, written)
        self._compressor.unfinished.remove(self)

    def discard(self) -> None:
        """Delete what was written; nothing more may be written."""
        self._compressor.unfinished.remove(self)
        self._file.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)


# Opening fails with these if the path is no longer the regular file that the scan saw.
_REPLACED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO})


class Packed(Struct):
    """An archive and the manifest of what it holds. `follow_up` are files that changed while they were read.

    Files in `unread` could not be read, and `secret_files` hold a secret: neither are in the archive. The entries of
    the latter are as read, without a stamp that may not tell of a later change.
    """

    archive: Archive = field(default_factory=Archive)
    manifest: Manifest = field(default_factory=Manifest)
    unread: dict[str, tuple[Entry, SyncWarning]] = field(default_factory=dict)
    secret_files: dict[str, tuple[Entry, Secret]] = field(default_factory=dict)
    follow_up: list[str] = field(default_factory=list)


PackProgress = Callable[[int, int, int, int], None]


class Packer(Struct, eq=False):
    """Packs one workspace's manifests into chunks of one store.

    A `base_store` learns which chunks hold the archive, and has what a sync needs no more on a full disk.
    """

    workspace: str
    store: ChunkStore
    clock: Clock
    check: Callable[[], None] = lambda: None
    search: SecretSearch | None = None
    base_store: BaseStore | None = None
    _packed: Packed = field(default_factory=Packed)  # of the present packing
    _room_bytes: int = 0
    _incomplete: bool = True  # an earlier process may have left pieces

    def pack(
        self,
        manifest: Manifest,
        most_bytes: int | None = None,
        on_progress: PackProgress = lambda *_: None,
    ) -> Packed:
        """The archive of the manifest. Raises `OSError` (a full disk), `WorkspaceError`, `TryLater`.

        `on_progress` is called with the bytes done and all bytes, and the same for the number of files. A path that
        vanished or was replaced since the scan is left to another sync, and so is a file that grew by more than is left
        of `most_bytes`; one that cannot be read becomes a warning.
        """
        total_files, total_bytes = manifest.files, manifest.content_bytes
        self._room_bytes = sys.maxsize if most_bytes is None else most_bytes - total_bytes
        self.clean_up()
        self._incomplete = True
        self._packed = packed = Packed(manifest=manifest.copy())
        chunks: dict[str, Piece | ChunkWriter] = {}  # by the first path in each
        done_files = done_bytes = 0
        with (
            safe_open.DirCursor(safe_open.open_workspace(self.workspace)) as cursor,
            Compressor(self.store) as compressor,
        ):
            for chunk in split(manifest.items()):
                self.check()
                done_files += count_files(chunk.values())
                done_bytes += content_bytes(chunk.values())
                key = key_of(chunk)
                piece = self.store.get(key) if key else None
                if piece is not None:
                    chunks[next(iter(chunk))] = piece
                    continue
                chunk_writer = ChunkWriter(compressor)
                entries = self._write(chunk_writer, cursor, chunk)
                if entries:
                    chunk_writer.end(key_of(entries))
                    chunks[next(iter(entries))] = chunk_writer
                else:
                    chunk_writer.discard()
                on_progress(done_bytes, total_bytes, done_files, total_files)
        stored = {path: each.piece if isinstance(each, ChunkWriter) else each for path, each in chunks.items()}
        packed.archive = Archive.of(stored.values())
        if self.base_store is not None:
            self.base_store.record_chunks(stored)
        self.store.keep_only(packed.archive.pieces)
        self._incomplete = False
        return packed

    def clean_up(self) -> None:
        """Delete the pieces of interrupted packings: they would accumulate, and a full disk would stay full."""
        if self._incomplete:
            # What was packed last is reused, and kept for a merge until the next whole archive has arrived.
            self.store.keep_only(() if self.base_store is None else self.base_store.pieces())
            self._incomplete = False

    def _write(
        self, chunk_writer: ChunkWriter, cursor: safe_open.DirCursor, chunk: dict[str, Entry]
    ) -> dict[str, Entry]:
        """Write the chunk, and return the entries as written; what is left out is in the manifest no more."""
        written = {}
        for path, entry in chunk.items():
            if entry.kind is not Kind.FILE:
                chunk_writer.write(archive_format.headers(path, entry, 0))
                written[path] = entry
                continue
            read = self._file(chunk_writer, cursor, path, entry)
            if read is None:
                del self._packed.manifest[path]
            else:
                written[path] = read
        self._packed.manifest.put(written.items())
        return written

    def _file(self, chunk_writer: ChunkWriter, cursor: safe_open.DirCursor, path: str, entry: Entry) -> Entry | None:
        """Write a file; return its entry as written, or None if it is left out."""
        try:
            parent, name = cursor.parent_of(path)
            descriptor, status = safe_open.open_file(name, parent)
        except OSError as failure:
            if failure.errno in _REPLACED:
                self._packed.follow_up.append(path)  # it is not what the scan saw
            else:
                self._leave_out(path, entry, failure)
            return None
        try:
            grown_bytes = max(0, status.st_size - entry.size_bytes)
            has_grown_large = entry.size_bytes <= PIECE_BYTES < status.st_size  # it needs a chunk of its own
            if has_grown_large or grown_bytes > self._room_bytes:
                self._packed.follow_up.append(path)
                return None
            self._room_bytes -= grown_bytes
            return self._read(chunk_writer, path, descriptor, status)
        except ReadError as failure:
            self._leave_out(path, entry, failure.cause)
            return None
        finally:
            os.close(descriptor)

    def _read(self, chunk_writer: ChunkWriter, path: str, descriptor: int, status: os.stat_result) -> Entry | None:
        """Write as many bytes of a file as its status says, whatever happens to it meanwhile."""
        read_at_ns = wall_ns(self.clock)
        before = file_entry(status)
        left_bytes = size_bytes = before.size_bytes
        digest, whole = hashlib.sha256(), True
        search = search_in(self.search, path, size_bytes)
        # It is written with the first piece: after a failure, a small file, which may share its chunk, has none.
        header = archive_format.headers(path, before, size_bytes)
        for piece in pieces(descriptor, size_bytes, self.check):
            digest.update(piece)
            secret = search(piece)
            if secret is not None:  # what was written of it goes with its chunk, which holds no other file
                self._packed.secret_files[path] = as_read(before, digest.digest(), read_at_ns), secret
                return None
            missing_bytes = min(PIECE_BYTES, left_bytes) - len(piece)
            if missing_bytes:
                # Cut shorter meanwhile: zeros fill the length that the header states, and another sync follows.
                piece, whole = piece + bytes(missing_bytes), False  # noqa: PLW2901
                digest.update(bytes(missing_bytes))
            left_bytes -= len(piece)
            chunk_writer.write(header, piece, b"" if left_bytes else archive_format.padding(size_bytes))
            header = b""
        content = digest.digest()
        if whole and (
            matches_status(before, os.fstat(descriptor)) or self._begins_with(descriptor, size_bytes, content)
        ):
            return as_read(before, content, read_at_ns)
        self._packed.follow_up.append(path)
        return as_sent(before, size_bytes, content)

    def _begins_with(self, descriptor: int, size_bytes: int, digest: bytes) -> bool:
        """Read so many bytes again, and return True if they are the same: then they are a copy of one instant.

        That is the instant between the two reads. A file to which something is only appended has such copies.
        """
        again = hashlib.sha256()
        try:
            for piece in pieces(descriptor, size_bytes, self.check):
                again.update(piece)
        except ReadError:
            return False
        return again.digest() == digest

    def _leave_out(self, path: str, entry: Entry, failure: OSError) -> None:
        """Add the warning about a file that cannot be read. Raises `TryLater` if a resource is used up."""
        safe_open.raise_if_exhausted(failure)
        self._packed.unread[path] = entry, unreadable(path, failure)
