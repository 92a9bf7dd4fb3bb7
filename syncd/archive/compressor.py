"""Compresses the blocks of many chunks in a small thread pool, and writes them to the spool in their order.

The codec releases the interpreter's lock, so that threads compress while the main thread reads. A single block is
compressed without a pool: most saves change one chunk, and starting a pool costs more. Files are read directly into
blocks, which are reused: nothing is copied, and no fresh memory, which the kernel would clear first, is allocated.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from syncd.archive.archive_format import Sum, deflated
from syncd.archive.chunk_store import ChunkStore, Piece
from syncd.archive.chunking import Codec

# Most chunks fit one block, and so does each file that is read whole (`file_reader.PIECE_BYTES`), with its header.
# Memory that was never written to costs nothing, but a large file fills all blocks.
BLOCK_BYTES = (1 << 20) + (64 << 10)
_MOST_THREADS = 4
# Blocks per thread that are filled and not yet written: this bounds memory.
_BLOCKS_PER_THREAD = 2


class Compressor:
    """A queue of blocks, used by one thread. On exit all of it is written, or all discarded after an exception."""

    def __init__(self, codec: Codec) -> None:
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

    def add(self, chunk_writer: ChunkWriter, filled: memoryview) -> None:
        """Append the filled beginning of a block to the chunk. The caller must not use the block afterwards."""
        if self._pool is None and self._queue:
            self._pool = ThreadPoolExecutor(self._threads, "syncd-compress")
            self._queue = deque((earlier, block, self._started(block)) for earlier, block, _ in self._queue)
        self._queue.append((chunk_writer, filled, self._started(filled)))

    def _started(self, filled: memoryview | None) -> Future[tuple[bytes, Sum]] | None:
        return None if self._pool is None or filled is None else self._pool.submit(deflated, filled, self._codec)

    def release(self, block: memoryview) -> None:
        """Return a block, or its filled beginning, that is not used any more."""
        self._free.append(memoryview(block.obj))

    def end(self, chunk_writer: ChunkWriter) -> None:
        """Finish the chunk, once its blocks are written."""
        self._queue.append((chunk_writer, None, None))

    def _write_one(self) -> None:
        chunk_writer, filled, future = self._queue.popleft()
        if filled is None:
            chunk_writer.piece = chunk_writer.writer.finish(chunk_writer.key)
            return
        if not chunk_writer.discarded:
            chunk_writer.writer.add(*(future.result() if future else deflated(filled, self._codec)))
        elif future is not None:
            future.exception()  # waits: the thread still reads the block
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
            for chunk_writer, _, _ in self._queue:
                chunk_writer.writer.discard()
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)


class ChunkWriter:
    """Writes one chunk into the spool, in order. `piece` is the result, once the chunk is written.

    Each method raises `OSError` if the disk has no room for it, or for the chunks before it.
    """

    def __init__(self, compressor: Compressor, store: ChunkStore) -> None:
        self._compressor = compressor
        self._block = compressor.block()
        self._filled_bytes = 0
        self.writer = store.writer()
        self.key: str | None = None
        self.piece: Piece | None = None
        self.discarded = False

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

    def discard(self) -> None:
        """Delete what was written; nothing more may be written."""
        self.discarded = True
        self.writer.discard()
        self._compressor.release(self._block)

    def end(self, key: str | None) -> None:
        """Finish the chunk; without a key it is stored for one archive only."""
        self.key = key
        self._compressor.add(self, self._block[: self._filled_bytes])
        self._compressor.end(self)
