"""How an upload keeps to a number of bytes a second."""

from __future__ import annotations

# A block is one send: the write time-out counts for it, and a stop or a pause is noticed after it.
BLOCK_BYTES = 64 << 10
# With a limit, blocks are this share of a second's bytes, so that the rate is even.
SHARE = 10
_LEAST_BYTES = 1 << 10


def block_bytes(limit_bytes_per_s: int) -> int:
    """The size of the blocks to send; 0 as limit means none."""
    if not limit_bytes_per_s:
        return BLOCK_BYTES
    return min(BLOCK_BYTES, max(_LEAST_BYTES, limit_bytes_per_s // SHARE))


def wait_s(sent_bytes: int, elapsed_s: float, limit_bytes_per_s: int) -> float:
    """Seconds to wait before the next block, so many bytes having been sent in so much time."""
    if not limit_bytes_per_s:
        return 0.0
    return max(0.0, sent_bytes / limit_bytes_per_s - elapsed_s)
