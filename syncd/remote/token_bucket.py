"""Limits an upload to a number of bytes a second: evenly, and without catching up after a stall.

A token bucket of a small depth. Sent bytes are ahead of the limit until time has passed for them. Bytes that were not
sent in their time may follow faster only as far as a late timer, or a busy processor, delays a block.
"""

from __future__ import annotations

from msgspec import Struct

# A block is one send: it has the write time-out, and a stop or a pause is noticed after it.
BLOCK_BYTES = 64 << 10
# With a limit, blocks are this share of a second's bytes. A block and the bytes caught up are together less than a
# twentieth of two seconds' bytes, since a limit is hardly ever measured over less than two seconds.
SHARE = 40
CATCH_UP_S = 0.05
# A smaller block would be mostly headers: 40 bytes of TCP and IP, 22 of TLS.
_LEAST_BYTES = 1 << 10


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
