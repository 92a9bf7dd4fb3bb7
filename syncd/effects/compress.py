"""Compresses the blocks of many chunks in a small pool, and writes each chunk's pieces in their order.

The codec releases the interpreter's lock, so two threads compress while this one reads. One block alone is compressed
where it is: most saves change one chunk, and a pool costs more than that.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from syncd.effects.chunk_store import Piece, PieceWriter
from syncd.effects.deflate import Sum, deflated

_MOST_THREADS = 4
# Blocks that are read but not written yet, for each thread: bounds memory.
_AHEAD = 2


class Making:
    """A chunk on its way into the spool; `piece` once it is there."""

    def __init__(self, writer: PieceWriter) -> None:
        self.writer = writer
        self.piece: Piece | None = None


class _End:
    """Marks a chunk's end in the queue."""

    def __init__(self, key: str | None) -> None:
        self.key = key


_Item = bytes | Future[tuple[bytes, Sum]] | _End


class Compressor:
    """A queue of blocks. Used by one thread; leave it with everything written, or with everything given up."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Making, _Item]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._threads = min(_MOST_THREADS, os.cpu_count() or 1)
        self._blocks = 0

    def block(self, making: Making, data: bytes) -> None:
        """The chunk goes on with this block. Raises `OSError` (a full disk), perhaps of an earlier block."""
        self._blocks += 1
        if self._pool is None and self._blocks > 1:
            self._pool = ThreadPoolExecutor(self._threads, "syncd-compress")
            waiting, self._queue = self._queue, deque()
            for earlier, item in waiting:
                self._queue.append((earlier, self._pool.submit(deflated, item) if isinstance(item, bytes) else item))
        self._queue.append((making, self._pool.submit(deflated, data) if self._pool else data))
        while len(self._queue) > _AHEAD * self._threads:
            self._write_one()

    def end(self, making: Making, key: str | None) -> None:
        """The chunk is whole; without a key it is for one archive only."""
        self._queue.append((making, _End(key)))

    def _write_one(self) -> None:
        making, item = self._queue.popleft()
        if isinstance(item, _End):
            making.piece = making.writer.finish(item.key)
        else:
            making.writer.add(*(item.result() if isinstance(item, Future) else deflated(item)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._queue:
                self._write_one()
        finally:
            for making, _ in self._queue:
                making.writer.discard()
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
