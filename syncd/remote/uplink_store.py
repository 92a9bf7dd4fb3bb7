"""Keeps the estimate of the uplink's speed across restarts: each `syncd push` is a process of its own.

There is one for each workspace, since its archives have similar sizes and go to one region. It only saves time, so an
invalid record is ignored, and a crash may lose it.
"""

from __future__ import annotations

import os
from math import isfinite

import msgspec
from msgspec import Struct

from syncd.archive.codec import Codec
from syncd.core.durable_file import read_file, write_whole
from syncd.remote.uplink import SAMPLES, Uplink

_VERSION = 1
_LARGEST = 1 << 12


class _UplinkRecord(Struct, rename={"measured_at_s": "told_at_s"}):  # as earlier versions wrote it
    version: int
    rates: list[float]
    codec: Codec
    measured_at_s: float


class UplinkStore:
    """Keeps one estimate."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "uplink")

    def load(self) -> Uplink:
        """Return the estimate, an empty one without a valid record."""
        try:
            record = msgspec.json.decode(read_file(self._path, _LARGEST), type=_UplinkRecord)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return Uplink()
        valid = len(record.rates) == SAMPLES and all(isfinite(rate) and rate > 0 for rate in record.rates)
        if record.version != _VERSION or not valid or not isfinite(record.measured_at_s):
            return Uplink()
        return Uplink(tuple(record.rates), record.codec, record.measured_at_s)

    def save(self, uplink: Uplink) -> None:
        """Keep the estimate. Raises `OSError`."""
        record = _UplinkRecord(_VERSION, list(uplink.rates), uplink.codec, uplink.measured_at_s)
        write_whole(self._path, msgspec.json.encode(record))
