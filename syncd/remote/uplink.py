"""Estimates the uplink's speed from completed uploads, chooses the better codec for it, and keeps the estimate.

Measured on a tree of 760 MB with two cores: the fast codec packs it into 212 MB in 1.2 s, the dense one into 180 MB in
4.0 s. The 32 MB saved are sent in the 2.8 s lost at 91 Mbit/s; below that the dense one is done sooner. A change of
codec packs the whole archive anew, once; a densely packed chunk then saves its share with each later upload, at no
further cost. So dense begins where its first upload clearly pays, and ends only where none pays.

The estimate outlives a process, since each `syncd push` is one of its own. There is one for each workspace, whose
archives have similar sizes and go to one region.
"""

from __future__ import annotations

from statistics import median

from msgspec import Struct

from syncd.archive.chunking import Codec
from syncd.store.state_db import Record, StateDb

# Bytes a second: 50 and 100 Mbit/s.
DENSE_BELOW = 50e6 / 8
FAST_ABOVE = 100e6 / 8
# Up to a second of an upload is overhead: a fresh connection finds its speed in some seven round trips, and the bucket
# takes its time to answer. The rate of an upload that takes twice that is wrong by a factor of two at most, which is
# the ratio of the two bounds. A shorter one only shows that the uplink is at least so fast.
LEAST_S = 2.0
# Below this a busy server's pause would look like a slow uplink, and there is little to save.
LEAST_BYTES = 1 << 20
# The median of three is not moved by one odd upload (a download beside it, a phone's network for a minute).
SAMPLES = 3
# After so long the next upload replaces the estimate, since laptops move. Until then the old one is the best guess:
# most laptops are back where they were, and a wrong guess costs one archive, but forgetting each night would cost two.
STALE_S = 12 * 3600.0


class Uplink(Struct, frozen=True):
    """The estimate of an uplink: the last rates in bytes a second, none at first, and the codec for it.

    `measured_at_s` is the time of the last measurement by the wall clock, since it outlives processes.
    """

    rates: tuple[float, ...] = ()
    codec: Codec = Codec.FAST
    measured_at_s: float = 0.0

    @property
    def bytes_per_s(self) -> float | None:
        """The estimate; None without any measurement."""
        return median(self.rates) if self.rates else None

    def observed(self, sent_bytes: int, seconds: float, now_s: float) -> Uplink:
        """Return the estimate after an upload that took `seconds` and was answered at `now_s` of the wall clock."""
        if seconds <= 0 or not _is_measurement(sent_bytes, seconds):
            return self
        rate = sent_bytes / seconds
        fresh = bool(self.rates) and 0 <= now_s - self.measured_at_s < STALE_S
        rates = (*self.rates[1:], rate) if fresh else (rate,) * SAMPLES
        return Uplink(rates, codec_for(median(rates), self.codec), now_s)


def codec_for(bytes_per_s: float, now: Codec) -> Codec:
    """Return the codec for an uplink of this speed, where `now` is the current one."""
    if bytes_per_s < DENSE_BELOW:
        return Codec.DENSE
    return Codec.FAST if bytes_per_s > FAST_ABOVE else now


def _is_measurement(sent_bytes: int, seconds: float) -> bool:
    """True if the upload's rate is the uplink's: it took long enough, or shows that the uplink is fast."""
    return sent_bytes >= LEAST_BYTES and (seconds >= LEAST_S or sent_bytes / seconds > FAST_ABOVE)


def uplink_record(db: StateDb) -> Record[Uplink]:
    """Return the record of the estimate."""
    return Record(db, "uplink", Uplink, "the next large upload measures the uplink")
