"""The API's limit of requests a second, as far as it is known: the wait before each request to it."""

from __future__ import annotations

from enum import Enum
from math import inf

from msgspec import Struct

REQUESTS_PER_WINDOW = 2
WINDOW_S = 1.0
# A limit may be one of the account, so its end is not announced: a request that is refused again begins a new hour.
PACED_S = 3600.0
_TOO_MANY_REQUESTS = 429


class RequestKind(Enum):
    """The way in which a request repeats."""

    SINGLE = "a step of its own"
    POLL = "asks again how an execution goes on: half of the requests are left to others"


class ApiLimit(Struct):
    """The API's limit of requests a second, for all of this process. Times are monotonic seconds.

    Requests wait only after an answer of 429, since an account may have a limit of two a second, or none. From then on
    it is kept to for an hour, so that the next ones are not refused as well: a refused one costs a wait, and often a
    step that is begun again. The state is not stored: a new process learns it by one refused request. The API counts a
    request at some moment between its sending and its answer. So one is sent a second after the answer before the last:
    however slow the network, no three are counted within a second. Where several sandboxes are asked side by side, one
    that is not answered yet counts from its sending: one that takes a minute delays no other. Requests to the bucket do
    not count.

    `counted_s` are the times of the last requests, `polled_s` is that of the last poll.
    """

    paced_until_s: float = -inf
    counted_s: tuple[float, ...] = ()
    polled_s: float = -inf

    def wait_s(self, kind: RequestKind, now_s: float) -> float:
        if now_s >= self.paced_until_s:
            return 0.0
        before_s = [self.counted_s[0]] if len(self.counted_s) == REQUESTS_PER_WINDOW else []
        if kind is RequestKind.POLL:
            before_s.append(self.polled_s)
        return max(0.0, max(before_s, default=-inf) + WINDOW_S - now_s)

    def count(self, kind: RequestKind, now_s: float) -> None:
        """Count a request that is sent now."""
        self.counted_s = (*self.counted_s, now_s)[-REQUESTS_PER_WINDOW:]
        if kind is RequestKind.POLL:
            self.polled_s = now_s

    def answered(self, kind: RequestKind, status: int | None, sent_s: float, now_s: float) -> None:
        """Count a request from its answer on, which came now, and not from when it was sent; None: it got none."""
        others_s = [*self.counted_s]
        if sent_s in others_s:
            others_s.remove(sent_s)
        self.counted_s = tuple(others_s)
        self.count(kind, now_s)
        if status == _TOO_MANY_REQUESTS:
            self.paced_until_s = now_s + PACED_S
