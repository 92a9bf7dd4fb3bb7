"""The two ways to compress an archive; `remote.uplink` chooses between them."""

from __future__ import annotations

from enum import Enum


class Codec(Enum):
    """A compression: fast, or smaller."""

    FAST = "fast"
    DENSE = "dense"
