"""How fast the uplink was, across restarts: each `syncd push` is a process of its own.

One a workspace, since its archives are of one size and go to one region. It is a guess that saves time, so nothing in
it is trusted: what makes no sense is as if nothing were known, and a crash may lose it.
"""

from __future__ import annotations

from math import isfinite

from syncd.archive.codec import Codec
from syncd.core.durable_file import CacheFile, Versioned
from syncd.remote.uplink import VOTES, Uplink

_LARGEST = 1 << 12


class _UplinkRecord(Versioned, frozen=True, kw_only=True):
    rates: list[float]
    codec: Codec
    told_at_s: float


class UplinkStore:
    """Keeps one estimate."""

    def __init__(self, folder: str) -> None:
        self._file = CacheFile(folder, "uplink", _UplinkRecord, _LARGEST)

    def load(self) -> Uplink:
        """What is known; nothing, where no sensible record is kept."""
        record = self._file.load()
        if record is None:
            return Uplink()
        sound = len(record.rates) == VOTES and all(isfinite(rate) and rate > 0 for rate in record.rates)
        if not sound or not isfinite(record.told_at_s):
            return Uplink()
        return Uplink(tuple(record.rates), record.codec, record.told_at_s)

    def save(self, uplink: Uplink) -> None:
        """Keep the estimate. Raises `OSError`."""
        self._file.save(_UplinkRecord(rates=list(uplink.rates), codec=uplink.codec, told_at_s=uplink.told_at_s))
