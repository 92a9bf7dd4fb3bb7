"""Decides how long an API request waits, once the API has refused one for coming too soon.

An account may have a limit of two requests a second, or none; only an answer of 429 tells. From then on a limit is kept
to for an hour, so that the next requests are not refused as well: a refused one costs a wait, and often a step that is
begun again. The state is not stored: a new process learns it by one refused request.

The API counts a request at some moment between its sending and its answer. So a request is sent a second after the
answer before the last: however slow the network, no three are counted within a second.
"""

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


class RequestPacing(Struct, frozen=True):
    """The state of the limit, of all requests with one key. Times are monotonic seconds.

    `answered_s` are the times of the last answers, `polled_s` is the one of the last poll's.
    """

    paced_until_s: float = -inf
    answered_s: tuple[float, ...] = ()
    polled_s: float = -inf

    def wait_s(self, kind: RequestKind, now_s: float) -> float:
        """Return the seconds until a request may be sent."""
        if now_s >= self.paced_until_s:
            return 0.0
        before_s = [self.answered_s[0]] if len(self.answered_s) == REQUESTS_PER_WINDOW else []
        if kind is RequestKind.POLL:
            before_s.append(self.polled_s)
        return max(0.0, max(before_s, default=-inf) + WINDOW_S - now_s)

    def answered(self, kind: RequestKind, status: int | None, now_s: float) -> RequestPacing:
        """Return the state after an answer, or after a request that got none (None)."""
        return RequestPacing(
            now_s + PACED_S if status == _TOO_MANY_REQUESTS else self.paced_until_s,
            (*self.answered_s, now_s)[-REQUESTS_PER_WINDOW:],
            now_s if kind is RequestKind.POLL else self.polled_s,
        )
