"""The two ways to compress an archive; `syncd.remote.uplink` chooses between them."""

from __future__ import annotations

from enum import Enum


class Codec(Enum):
    """How an archive is compressed."""

    FAST = "fast"
    DENSE = "dense"
