"""Compresses the blocks of many chunks in a small thread pool, which also writes them to the spool.

The codec and the kernel's calls release the interpreter's lock, so that the pool works while the main thread reads. A
single block is compressed without a pool: most saves change one chunk, and starting a pool costs more. Files are read
directly into blocks, which are reused: nothing is copied, and no fresh memory, which the kernel would clear first, is
allocated.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from syncd.archive.chunk_store import ChunkStore, Piece
from syncd.archive.codec import Codec
from syncd.archive.deflate import deflated

# Most chunks fit one block, and so does each file that is read whole (`file_reader.PIECE_BYTES`), with its header.
# Memory that was never written to costs nothing, but a large file fills all blocks.
BLOCK_BYTES = (1 << 20) + (64 << 10)
_MOST_THREADS = 4
# Blocks per thread that are filled and not yet written: this bounds memory.
_BLOCKS_PER_THREAD = 2


class _Buffer:
    """A block of a chunk's bytes: take `space`, fill it from its start, and `advance` by the number of bytes filled."""

    __slots__ = ("_used", "_view")

    def __init__(self) -> None:
        self._view = memoryview(bytearray(BLOCK_BYTES))
        self._used = 0

    def has_room(self, size_bytes: int) -> bool:
        """True if this many bytes fit; an empty block has room for `BLOCK_BYTES`."""
        return self._used + size_bytes <= BLOCK_BYTES

    def space(self, size_bytes: int) -> memoryview:
        """The next free bytes."""
        return self._view[self._used : self._used + size_bytes]

    def advance(self, size_bytes: int) -> None:
        """Count the next bytes as filled."""
        self._used += size_bytes

    def filled(self) -> memoryview:
        """The bytes that are filled."""
        return self._view[: self._used]

    def empty(self) -> None:
        """Make all of the block free again."""
        self._used = 0


@dataclass(frozen=True)
class _End:
    """The end of a chunk; without a key it is stored for one archive only."""

    key: str | None


class _Task:
    """Compresses one block, and appends it to its chunk's piece after the block `before` it; runs in any thread."""

    def __init__(
        self, chunk_writer: ChunkWriter, block: _Buffer, codec: Codec, before: _Task | None, end: _End | None
    ) -> None:
        self.chunk_writer = chunk_writer
        self.block = block
        self.future: Future[Piece | None] | None = None
        self._codec = codec
        self._before = before
        self._end = end

    def run(self) -> Piece | None:
        """The piece, if this was its last block. Raises `OSError` (a full disk), also for the blocks before."""
        if self.chunk_writer.discarded:
            return None
        written = deflated(self.block.filled(), self._codec)
        if self._before is not None and self._before.future is not None:
            self._before.future.result()  # it began earlier, so this thread does not wait for itself
        self._before = None  # which knows the one before it: a large file has thousands
        self.chunk_writer.writer.add(*written)
        return self.chunk_writer.writer.finish(self._end.key) if self._end else None

    def result(self) -> Piece | None:
        """The result of `run`, which runs now if no thread was to run it. Raises `OSError`."""
        return self.run() if self.future is None else self.future.result()


class Compressor:
    """A queue of blocks, used by one thread. On exit all of it is written, or all discarded after an exception."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._queue: deque[_Task] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._threads = min(_MOST_THREADS, os.cpu_count() or 1)
        self._free: list[_Buffer] = []
        self._unallocated = _BLOCKS_PER_THREAD * self._threads + 1

    def block(self) -> _Buffer:
        """An empty block, as soon as one is free. Raises `OSError` (a full disk) for an earlier block."""
        while not self._free and not self._unallocated:
            self._finish_one()
        if self._free:
            return self._free.pop()
        self._unallocated -= 1
        return _Buffer()

    def add(self, chunk_writer: ChunkWriter, block: _Buffer, before: _Task | None, end: _End | None) -> _Task:
        """Append the block to the chunk. The caller must not use the block afterwards."""
        task = _Task(chunk_writer, block, self._codec, before, end)
        self._queue.append(task)
        if self._pool is None and len(self._queue) > 1:
            self._pool = ThreadPoolExecutor(self._threads, "syncd-compress")
            for earlier in self._queue:
                earlier.future = self._pool.submit(earlier.run)
        elif self._pool is not None:
            task.future = self._pool.submit(task.run)
        return task

    def release(self, block: _Buffer) -> None:
        """Return a block that is not used any more."""
        block.empty()
        self._free.append(block)

    def wait_for(self, chunk_writer: ChunkWriter) -> None:
        """Wait until no thread works on the chunk."""
        for task in self._queue:
            if task.chunk_writer is chunk_writer and task.future is not None:
                task.future.exception()

    def _finish_one(self) -> None:
        task = self._queue[0]
        if task.chunk_writer.discarded:
            self.wait_for(task.chunk_writer)  # the threads still read the blocks
        else:
            piece = task.result()
            if piece is not None:
                task.chunk_writer.written(piece)
        self._queue.popleft()
        self.release(task.block)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._queue:
                self._finish_one()
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
            for task in self._queue:
                task.chunk_writer.writer.discard()


class ChunkWriter:
    """Writes one chunk into the spool, in order. `piece` is the result, once the chunk is written.

    Each method raises `OSError` if the disk has no room for it, or for the chunks before it.
    """

    def __init__(self, compressor: Compressor, store: ChunkStore) -> None:
        self._compressor = compressor
        self._store = store
        self._block = compressor.block()
        self._last: _Task | None = None
        self.writer = store.writer()  # used by the compressor's threads
        self.piece: Piece | None = None
        self.discarded = False

    def space(self, size_bytes: int) -> memoryview:
        """Space for the next bytes, up to `BLOCK_BYTES`: fill it and call `advance`, or leave it unused."""
        if not self._block.has_room(size_bytes):
            self._last = self._compressor.add(self, self._block, self._last, None)
            self._block = self._compressor.block()
        return self._block.space(size_bytes)

    def advance(self, size_bytes: int) -> None:
        """Count bytes of the last `space` as written."""
        self._block.advance(size_bytes)

    def write(self, content: bytes) -> None:
        """Write these bytes, up to `BLOCK_BYTES`."""
        self.space(len(content))[:] = content
        self.advance(len(content))

    def discard(self) -> None:
        """Delete what was written; nothing more may be written."""
        self.discarded = True
        self._compressor.wait_for(self)
        self.writer.discard()
        self._compressor.release(self._block)

    def end(self, key: str | None) -> None:
        """Finish the chunk; without a key it is stored for one archive only."""
        self._compressor.add(self, self._block, self._last, _End(key))
        self._last = None  # which knows this chunk: the blocks would stay in memory until the next collection

    def written(self, piece: Piece) -> None:
        """Take the piece that holds the chunk."""
        self.piece = piece
        self._store.add(piece)
