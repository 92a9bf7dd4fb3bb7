"""How an upload keeps to a number of bytes a second: evenly, and without making up for what a stall has cost.

A bucket of a small depth. What is sent is ahead of the limit until time has passed for it; what was not sent in its
time may follow faster only as far as a timer that rings late, or a busy processor, holds a block up.
"""

from __future__ import annotations

from dataclasses import dataclass

# A block is one send: the write time-out counts for it, and a stop or a pause is noticed after it.
BLOCK_BYTES = 64 << 10
# With a limit, blocks are this share of a second's bytes. The block and what may be caught up are together less than
# a twentieth of two seconds' bytes, since nobody notices a limit that is kept to over two seconds.
SHARE = 40
CATCH_UP_S = 0.05
# Smaller ones would mostly be headers: 40 bytes of TCP and IP, 22 of TLS.
_LEAST_BYTES = 1 << 10


def block_bytes(limit_bytes_per_s: int) -> int:
    """The size of the blocks to send; 0 as limit means none."""
    if not limit_bytes_per_s:
        return BLOCK_BYTES
    return min(BLOCK_BYTES, max(_LEAST_BYTES, limit_bytes_per_s // SHARE))


@dataclass(frozen=True)
class TokenBucket:
    """How many bytes an upload is ahead of its limit, at a moment of a clock that stands still in suspend."""

    at_s: float
    ahead_bytes: float = 0.0

    def later(self, now_s: float, limit_bytes_per_s: int) -> TokenBucket:
        """Time has passed under this limit; 0: there was none. A clock that went back gives nothing and takes nothing.

        Over any stretch of time no more is sent than the limit allows for it, CATCH_UP_S seconds' bytes and a block.
        """
        if not limit_bytes_per_s:
            return TokenBucket(now_s)
        # What was sent under a higher limit is not held against this one for longer than a block of its own.
        ahead_bytes = min(self.ahead_bytes, block_bytes(limit_bytes_per_s))
        ahead_bytes -= limit_bytes_per_s * max(0.0, now_s - self.at_s)
        return TokenBucket(now_s, max(ahead_bytes, -CATCH_UP_S * limit_bytes_per_s))

    def sent(self, size_bytes: int) -> TokenBucket:
        """So many more bytes are on their way."""
        return TokenBucket(self.at_s, self.ahead_bytes + size_bytes)

    def wait_s(self, limit_bytes_per_s: int) -> float:
        """Seconds until the next block may go, from the moment that this is about; none for a part of a byte."""
        return self.ahead_bytes / limit_bytes_per_s if limit_bytes_per_s and self.ahead_bytes >= 1 else 0.0
