"""The log of requests to the emulator, which tests count by operation and wait for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from syncd.emulator import server

KEPT_ENTRIES = 10_000


class RequestRecord(server.RequestRecord):
    """One request, with its fault."""

    fault: str | None = None
    finished: bool = False

    def __str__(self) -> str:
        return f"{super().__str__()} fault: {self.fault}" if self.fault else super().__str__()


class RequestLog:
    """The last requests, oldest first; safe from any thread."""

    def __init__(self) -> None:
        self._entries: deque[RequestRecord] = deque(maxlen=KEPT_ENTRIES)
        self._changed = threading.Condition()

    def begin(self, entry: RequestRecord) -> None:
        with self._changed:
            self._entries.append(entry)
            self._changed.notify_all()

    def finish(self, entry: RequestRecord) -> None:
        """Mark the entry as finished."""
        with self._changed:
            entry.finished = True
            self._changed.notify_all()

    def entries(self) -> list[RequestRecord]:
        with self._changed:
            return list(self._entries)

    def __iter__(self) -> Iterator[RequestRecord]:
        return iter(self.entries())

    def __getitem__(self, index: int) -> RequestRecord:
        return self._entries[index]

    def ops(self) -> list[str]:
        """The operations in the order in which they began."""
        return [entry.op for entry in self.entries()]

    def count(self, op: str, status: int | None = None) -> int:
        """The number of requests of `op`, or of those that were answered with `status`."""
        return sum(entry.op == op and status in (None, entry.status) for entry in self.entries())

    def wait(self, op: str, count: int = 1, timeout_s: float = 60.0) -> bool:
        """Wait for `count` finished requests of `op`. True if there are so many before the timeout."""
        with self._changed:
            return self._changed.wait_for(
                lambda: sum(entry.op == op and entry.finished for entry in self._entries) >= count, timeout_s
            )
