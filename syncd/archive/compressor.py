"""Compresses the blocks of many chunks in a small thread pool, and writes them to the spool in their order.

The codec releases the interpreter's lock, so that threads compress while the main thread reads. A single block is
compressed without a pool: most saves change one chunk, and starting a pool costs more. Files are read directly into
blocks, which are reused: nothing is copied, and no fresh memory, which the kernel would clear first, is allocated.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from syncd.archive.archive_format import Sum, deflated
from syncd.archive.chunk_store import ChunkStore, Piece, write_all
from syncd.archive.chunking import Codec
from syncd.core.checksum import crc32c

# Most chunks fit one block, and so does each file that is read whole (`file_reader.PIECE_BYTES`), with its header.
# Memory that was never written to costs nothing, but a large file fills all blocks.
BLOCK_BYTES = (1 << 20) + (64 << 10)
_MOST_THREADS = 4
# Blocks per thread that are filled and not yet written: this bounds memory.
_BLOCKS_PER_THREAD = 2


class Compressor:
    """A queue of blocks, used by one thread. On exit all of it is written, or all discarded after an exception."""

    def __init__(self, codec: Codec, store: ChunkStore) -> None:
        self.store = store
        self.unfinished: set[ChunkWriter] = set()
        self._codec = codec
        # Filled blocks, or None for the end of the chunk.
        self._queue: deque[tuple[ChunkWriter, memoryview | None, Future[tuple[bytes, Sum]] | None]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._threads = min(_MOST_THREADS, os.cpu_count() or 1)
        self._free: list[memoryview] = []
        self._unallocated = _BLOCKS_PER_THREAD * self._threads + 1

    def block(self) -> memoryview:
        """A block of `BLOCK_BYTES`, as soon as one is free. Raises `OSError` (a full disk) for an earlier block."""
        while not self._free and not self._unallocated:
            self._write_one()
        if self._free:
            return self._free.pop()
        self._unallocated -= 1
        return memoryview(bytearray(BLOCK_BYTES))

    def add(self, chunk_writer: ChunkWriter, filled: memoryview | None) -> None:
        """Append the filled beginning of a block, which is not the caller's any more; None ends the chunk."""
        if self._pool is None and self._queue and filled is not None:
            self._pool = ThreadPoolExecutor(self._threads, "syncd-compress")
            self._queue = deque((earlier, block, self._started(block)) for earlier, block, _ in self._queue)
        self._queue.append((chunk_writer, filled, self._started(filled)))

    def _started(self, filled: memoryview | None) -> Future[tuple[bytes, Sum]] | None:
        return None if self._pool is None or filled is None else self._pool.submit(deflated, filled, self._codec)

    def release(self, block: memoryview) -> None:
        """Return a block, or its filled beginning, that is not used any more."""
        self._free.append(memoryview(block.obj))

    def _write_one(self) -> None:
        chunk_writer, filled, future = self._queue.popleft()
        if filled is None:
            chunk_writer.finish()
            return
        compressed, content = future.result() if future else deflated(filled, self._codec)
        if chunk_writer in self.unfinished:
            chunk_writer.append(compressed, content)
        self.release(filled)

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
        self._block = compressor.block()
        self._filled_bytes = 0
        self._path, self._file = compressor.store.create()  # closed by finish or discard
        compressor.unfinished.add(self)
        self._key = ""
        self._size_bytes = self._crc32c = 0
        self._content = Sum()
        self.piece: Piece  # once the chunk is written

    def space(self, size_bytes: int) -> memoryview:
        """Space for the next bytes, up to `BLOCK_BYTES`: fill it and call `advance`, or leave it unused."""
        end = self._filled_bytes + size_bytes
        if end > BLOCK_BYTES:
            self._compressor.add(self, self._block[: self._filled_bytes])
            self._block = self._compressor.block()
            self._filled_bytes, end = 0, size_bytes
        return self._block[self._filled_bytes : end]

    def advance(self, size_bytes: int) -> None:
        """Count bytes of the last `space` as written."""
        self._filled_bytes += size_bytes

    def write(self, content: bytes) -> None:
        """Write these bytes, up to `BLOCK_BYTES`."""
        self.space(len(content))[:] = content
        self._filled_bytes += len(content)

    def end(self, key: str | None) -> None:
        """Finish the chunk, once its blocks are written; without a key it is stored for one archive only."""
        self._key = key or ""
        self._compressor.add(self, self._block[: self._filled_bytes])
        self._compressor.add(self, None)

    def append(self, compressed: bytes, content: Sum) -> None:
        """Write a compressed block to the disk."""
        write_all(self._file, compressed)
        self._size_bytes += len(compressed)
        self._crc32c = crc32c(compressed, self._crc32c)
        self._content = self._content.then(content)

    def finish(self) -> None:
        """Store the piece, all of whose blocks are on the disk."""
        written = Piece(self._path, self._key, self._size_bytes, self._crc32c, self._content)
        self.piece = self._compressor.store.add(self._file, written)
        self._compressor.unfinished.remove(self)

    def discard(self) -> None:
        """Delete what was written; nothing more may be written."""
        self._compressor.unfinished.remove(self)
        self._compressor.release(self._block)
        self._file.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)
