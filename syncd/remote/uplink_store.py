"""Keeps the estimate of the uplink's speed across restarts: each `syncd push` is a process of its own.

There is one for each workspace, since its archives have similar sizes and go to one region. It only saves time, so an
invalid record is ignored, and a crash may lose it.
"""

from __future__ import annotations

from math import isfinite

from syncd.archive.codec import Codec
from syncd.core.durable_file import CacheFile, Versioned
from syncd.remote.uplink import SAMPLES, Uplink

_LARGEST = 1 << 12


class _UplinkRecord(Versioned, frozen=True, kw_only=True):
    rates: list[float]
    codec: Codec
    measured_at_s: float


class UplinkStore:
    """Keeps one estimate."""

    def __init__(self, folder: str) -> None:
        self._file = CacheFile(folder, "uplink", _UplinkRecord, _LARGEST)

    def load(self) -> Uplink:
        """Return the estimate, an empty one without a valid record."""
        record = self._file.load()
        if record is None:
            return Uplink()
        valid = len(record.rates) == SAMPLES and all(isfinite(rate) and rate > 0 for rate in record.rates)
        if not valid or not isfinite(record.measured_at_s):
            return Uplink()
        return Uplink(tuple(record.rates), record.codec, record.measured_at_s)

    def save(self, uplink: Uplink) -> None:
        """Keep the estimate. Raises `OSError`."""
        self._file.save(_UplinkRecord(rates=list(uplink.rates), codec=uplink.codec, measured_at_s=uplink.measured_at_s))
