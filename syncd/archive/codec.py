"""The two ways to compress an archive; `remote.uplink` chooses between them."""

from __future__ import annotations

from enum import Enum


class Codec(Enum):
    """A compression: fast, or smaller."""

    FAST = "fast"
    DENSE = "dense"


# isal's level of 0 to 3, and zlib's of 1 to 9.
FAST_LEVEL = 2
DENSE_LEVEL = 6
