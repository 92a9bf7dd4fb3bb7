"""Compresses the blocks of many chunks in a small pool, and writes each chunk's pieces in their order.

The codec releases the interpreter's lock, so two threads compress while this one reads. One block alone is compressed
where it is: most saves change one chunk, and a pool costs more than that. Blocks are filled where they are and used
again: what is read from a file is not copied, and fresh memory, which the kernel clears first, is not asked for.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from syncd.archive.chunk_store import ChunkStore, Piece
from syncd.archive.codec import Codec
from syncd.archive.deflate import Sum, deflated

# Most chunks fit one block, and so does each file that is read whole (`content.PIECE_BYTES`), with its header. Memory
# that was never written to costs nothing, but a large file fills all blocks there are.
BLOCK_BYTES = (1 << 20) + (64 << 10)
_MOST_THREADS = 4
# Blocks that are read but not written yet, for each thread: bounds memory.
_AHEAD = 2


class _Buffer:
    """Room for the bytes of a chunk: take `space`, fill it from its start, and `advance` by what is to stay."""

    __slots__ = ("_used", "_view")

    def __init__(self) -> None:
        self._view = memoryview(bytearray(BLOCK_BYTES))
        self._used = 0

    def has_room(self, size_bytes: int) -> bool:
        """Whether so many bytes fit; into an empty block `BLOCK_BYTES` do."""
        return self._used + size_bytes <= BLOCK_BYTES

    def space(self, size_bytes: int) -> memoryview:
        """The next so many bytes."""
        return self._view[self._used : self._used + size_bytes]

    def advance(self, size_bytes: int) -> None:
        """The next so many bytes are filled."""
        self._used += size_bytes

    def filled(self) -> memoryview:
        """What was filled so far."""
        return self._view[: self._used]

    def empty(self) -> None:
        """Start over."""
        self._used = 0


class _End:
    """Marks a chunk's end in the queue."""

    def __init__(self, key: str | None) -> None:
        self.key = key


_Item = _Buffer | _End


class Compressor:
    """A queue of blocks. Used by one thread; leave it with everything written, or with everything given up."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._queue: deque[tuple[ChunkWriter, _Item, Future[tuple[bytes, Sum]] | None]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._threads = min(_MOST_THREADS, os.cpu_count() or 1)
        self._free: list[_Buffer] = []
        self._unmade = _AHEAD * self._threads + 1

    def block(self) -> _Buffer:
        """An empty block, as soon as there is one. Raises `OSError` (a full disk) of an earlier block."""
        while not self._free and not self._unmade:
            self._write_one()
        if self._free:
            return self._free.pop()
        self._unmade -= 1
        return _Buffer()

    def add(self, chunk_writer: ChunkWriter, block: _Buffer) -> None:
        """The chunk goes on with what is in the block, which is given away."""
        if self._pool is None and self._queue:
            self._pool = ThreadPoolExecutor(self._threads, "syncd-compress")
            self._queue = deque((earlier, item, self._started(item)) for earlier, item, _ in self._queue)
        self._queue.append((chunk_writer, block, self._started(block)))

    def _started(self, item: _Item) -> Future[tuple[bytes, Sum]] | None:
        if self._pool is None or isinstance(item, _End):
            return None
        return self._pool.submit(deflated, item.filled(), self._codec)

    def take_back(self, block: _Buffer) -> None:
        """The block is not needed after all."""
        block.empty()
        self._free.append(block)

    def end(self, chunk_writer: ChunkWriter, key: str | None) -> None:
        """The chunk is whole; without a key it is for one archive only."""
        self._queue.append((chunk_writer, _End(key), None))

    def _write_one(self) -> None:
        chunk_writer, item, future = self._queue.popleft()
        if isinstance(item, _End):
            chunk_writer.piece = chunk_writer.writer.finish(item.key)
            return
        if not chunk_writer.given_up:
            chunk_writer.writer.add(*(future.result() if future else deflated(item.filled(), self._codec)))
        elif future is not None:
            future.exception()  # it reads the block until then
        self.take_back(item)

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
    """The bytes of one chunk on their way into the spool; `piece` once it is there.

    Used like tape: what is written lies behind what was. Each method raises `OSError` if the disk has no room for it,
    or for the chunks before it.
    """

    def __init__(self, compressor: Compressor, store: ChunkStore) -> None:
        self._compressor = compressor
        self._block = compressor.block()
        self.writer = store.writer()
        self.piece: Piece | None = None
        self.given_up = False

    def space(self, size_bytes: int) -> memoryview:
        """Room for the next so many bytes, up to `BLOCK_BYTES`: fill it, then `advance`; or leave it."""
        if not self._block.has_room(size_bytes):
            self._compressor.add(self, self._block)
            self._block = self._compressor.block()
        return self._block.space(size_bytes)

    def advance(self, size_bytes: int) -> None:
        """So many bytes of the last `space` stay."""
        self._block.advance(size_bytes)

    def write(self, content: bytes) -> None:
        """These bytes, up to `BLOCK_BYTES`."""
        self.space(len(content))[:] = content
        self.advance(len(content))

    def give_up(self) -> None:
        """Nothing of it stays, and nothing more will be written."""
        self.given_up = True
        self.writer.discard()
        self._compressor.take_back(self._block)

    def end(self, key: str | None) -> None:
        """The chunk is whole; without a key it is for one archive only."""
        self._compressor.add(self, self._block)
        self._compressor.end(self, key)
