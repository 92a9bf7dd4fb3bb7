"""How fast the uplink was, across restarts: each `syncd push` is a process of its own.

One a workspace, since its archives are of one size and go to one region. It is a guess that saves time, so nothing in
it is trusted: what makes no sense is as if nothing were known, and a crash may lose it.
"""

from __future__ import annotations

import os
from math import isfinite

import msgspec
from msgspec import Struct

from syncd.archive.codec import Codec
from syncd.core.durable_file import read_file, write_whole
from syncd.remote.uplink import VOTES, Uplink

_VERSION = 1
_LARGEST = 1 << 12


class _UplinkRecord(Struct):
    version: int
    rates: list[float]
    codec: Codec
    told_at_s: float


class UplinkStore:
    """Keeps one estimate."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "uplink")

    def load(self) -> Uplink:
        """What is known; nothing, where no sensible record is kept."""
        try:
            record = msgspec.json.decode(read_file(self._path, _LARGEST), type=_UplinkRecord)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return Uplink()
        sound = len(record.rates) == VOTES and all(isfinite(rate) and rate > 0 for rate in record.rates)
        if record.version != _VERSION or not sound or not isfinite(record.told_at_s):
            return Uplink()
        return Uplink(tuple(record.rates), record.codec, record.told_at_s)

    def save(self, uplink: Uplink) -> None:
        """Keep the estimate. Raises `OSError`."""
        record = _UplinkRecord(_VERSION, list(uplink.rates), uplink.codec, uplink.told_at_s)
        write_whole(self._path, msgspec.json.encode(record))
