"""The log of requests to the emulator: tests count them by operation, and `syncd emulator` prints them.

It holds no key and no signature: of a query only a few harmless parameters are kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

from msgspec import Struct

from syncd.emulator.wire import Request

KEPT_ENTRIES = 10_000
_SHOWN_PARAMETERS = frozenset({"region", "execution_name", "cursor", "is_ttl"})


class RequestRecord(Struct):
    """One request. `status` is None until an answer is sent."""

    started_at: float
    op: str
    method: str
    path: str
    sandbox: str | None = None
    fault: str | None = None
    status: int | None = None
    bytes_in: int = 0
    seconds: float = 0.0
    finished: bool = False

    def __str__(self) -> str:
        outcome = "no answer" if self.status is None else str(self.status)
        fault = f" fault: {self.fault}" if self.fault else ""
        return f"{self.op} {self.method} {self.path} {self.bytes_in} B in {self.seconds:.3f} s: {outcome}{fault}"


def redacted(request: Request) -> str:
    """The request's path and the harmless parameters of its query; `…` for the others."""
    if not request.query:
        return request.path
    shown = [f"{name}={value}" if name in _SHOWN_PARAMETERS else "…" for name, value in request.query]
    return f"{request.path}?{'&'.join(dict.fromkeys(shown))}"


class RequestLog:
    """The last requests, oldest first; safe from any thread."""

    def __init__(self, observer: Callable[[RequestRecord], None] | None = None) -> None:
        self._entries: deque[RequestRecord] = deque(maxlen=KEPT_ENTRIES)
        self._changed = threading.Condition()
        self._observer = observer

    def begin(self, entry: RequestRecord) -> None:
        with self._changed:
            self._entries.append(entry)
            self._changed.notify_all()

    def finish(self, entry: RequestRecord) -> None:
        """Mark the entry as finished and call the observer."""
        with self._changed:
            entry.finished = True
            self._changed.notify_all()
        if self._observer is not None:
            self._observer(entry)

    def entries(self) -> list[RequestRecord]:
        with self._changed:
            return list(self._entries)

    def __iter__(self) -> Iterator[RequestRecord]:
        return iter(self.entries())

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> RequestRecord:
        return self._entries[index]

    def ops(self) -> list[str]:
        """The operations in the order in which they began."""
        return [entry.op for entry in self.entries()]

    def count(self, op: str, status: int | None = None) -> int:
        """The number of requests of `op`, or of those that were answered with `status`."""
        return sum(entry.op == op and status in (None, entry.status) for entry in self.entries())

    def wait(self, op: str, count: int = 1, timeout_s: float = 10.0) -> bool:
        """Wait for `count` finished requests of `op`. True if there are so many before the timeout."""
        with self._changed:
            return self._changed.wait_for(
                lambda: sum(entry.op == op and entry.finished for entry in self._entries) >= count, timeout_s
            )
