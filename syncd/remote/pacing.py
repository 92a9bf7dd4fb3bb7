"""Limits of what is sent: an upload's bytes a second, and the API's requests a second once it has refused one.

**Bytes** go evenly, and without catching up after a stall: a token bucket of a small depth. Sent bytes are ahead of the
limit until time has passed for them. Bytes that were not sent in their time may follow faster only as far as a late
timer, or a busy processor, delays a block. The connection is limited in the kernel, too: during a stall of the network
it holds what was written meanwhile, and once that goes on, all of it would leave at once.

**Requests** wait only after an answer of 429, since an account may have a limit of two a second, or none. From then on
a limit is kept to for an hour, so that the next requests are not refused as well: a refused one costs a wait, and often
a step that is begun again. The state is not stored: a new process learns it by one refused request. The API counts a
request at some moment between its sending and its answer. So a request is sent a second after the answer before the
last: however slow the network, no three are counted within a second.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from enum import Enum
from math import inf

from msgspec import Struct

# A block is one send: it has the write time-out, and a stop or a pause is noticed after it.
BLOCK_BYTES = 64 << 10
# With a limit, blocks are this share of a second's bytes. A block and the bytes caught up are together less than a
# twentieth of two seconds' bytes, since a limit is hardly ever measured over less than two seconds.
SHARE = 40
CATCH_UP_S = 0.05
# A smaller block would be mostly headers: 40 bytes of TCP and IP, 22 of TLS.
_LEAST_BYTES = 1 << 10
# socket(7), asm-generic/socket.h: bytes a second, all bits set for no limit. Python has no name for it.
_SO_MAX_PACING_RATE = 47
_NO_LIMIT = 0xFFFF_FFFF
# A little above the limit, since TLS adds to what is sent, and syncd itself paces the blocks.
_ROOM = 32
# The kernel delays each packet by the rate that holds when it is queued, even if the limit is lifted then: a minute for
# 64 KiB at 1 KiB a second. Below this rate the unsent bytes that it may hold are few enough by themselves.
_LEAST_RATE = 64 << 10
# What the kernel may hold unsent (tcp(7)): enough to be busy until more is written.
_UNSENT_S = 0.1
_LEAST_UNSENT_BYTES = 4 << 10
REQUESTS_PER_WINDOW = 2
WINDOW_S = 1.0
# A limit may be one of the account, so its end is not announced: a request that is refused again begins a new hour.
PACED_S = 3600.0
_TOO_MANY_REQUESTS = 429


def block_bytes(limit_bytes_per_s: int) -> int:
    """Return the size of the blocks to send; a limit of 0 is none."""
    if not limit_bytes_per_s:
        return BLOCK_BYTES
    return min(BLOCK_BYTES, max(_LEAST_BYTES, limit_bytes_per_s // SHARE))


class TokenBucket(Struct, frozen=True):
    """The number of bytes by which an upload is ahead of its limit, at a second of a clock that stops in suspend."""

    at_s: float
    ahead_bytes: float = 0.0

    def refilled(self, now_s: float, limit_bytes_per_s: int) -> TokenBucket:
        """Return the state after time has passed under this limit; 0 is none. A clock that went back changes nothing.

        In any period an upload sends at most what the limit allows for it, CATCH_UP_S seconds' bytes and a block.
        """
        if not limit_bytes_per_s:
            return TokenBucket(now_s)
        # Bytes sent under a higher limit delay this one by no more than a block of its own.
        ahead_bytes = min(self.ahead_bytes, block_bytes(limit_bytes_per_s))
        ahead_bytes -= limit_bytes_per_s * max(0.0, now_s - self.at_s)
        return TokenBucket(now_s, max(ahead_bytes, -CATCH_UP_S * limit_bytes_per_s))

    def consumed(self, size_bytes: int) -> TokenBucket:
        """Return the state after so many more bytes were sent."""
        return TokenBucket(self.at_s, self.ahead_bytes + size_bytes)

    def wait_s(self, limit_bytes_per_s: int) -> float:
        """Return the seconds from `at_s` until the next block may be sent; 0 for a part of a byte."""
        return self.ahead_bytes / limit_bytes_per_s if limit_bytes_per_s and self.ahead_bytes >= 1 else 0.0


def set_kernel_pacing(connection: socket.socket, limit_bytes_per_s: int) -> None:
    """Have the kernel send at most so many bytes a second, and hold few unsent; 0 is no limit.

    A connection that never had a limit is left as it is.
    """
    rate, unsent_bytes = _NO_LIMIT, 0  # 0 is the system's own
    if limit_bytes_per_s:
        rate = min(_NO_LIMIT - 1, max(_LEAST_RATE, limit_bytes_per_s + limit_bytes_per_s // _ROOM))
        unsent_bytes = max(_LEAST_UNSENT_BYTES, int(limit_bytes_per_s * _UNSENT_S))
    with contextlib.suppress(OSError, AttributeError):  # it has just ended, or this system cannot
        if not limit_bytes_per_s and _rate(connection) == _NO_LIMIT:
            return
        connection.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("I", rate))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent_bytes)


def _rate(connection: socket.socket) -> int:
    return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, 4), sys.byteorder)


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
