"""How fast the uplink is, by the uploads that arrived, and which codec that makes the better one.

What was measured on a tree of 760 MB with two cores: the fast codec packs it into 212 MB in 1.2 s, the dense one into
180 MB in 4.0 s. The 32 MB saved are sent in the 2.8 s lost at 91 Mbit/s; below that the dense one is sooner done. A
change of codec makes the whole archive anew, once; a chunk made dense then saves its share with each later upload, at
no further cost. So dense begins where its first upload pays clearly, and ends only where none pays.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from syncd.archive.codec import Codec

# Bytes a second: 50 and 100 Mbit/s.
DENSE_BELOW = 50e6 / 8
FAST_ABOVE = 100e6 / 8
# Up to a second of an upload is no sending: a fresh connection finds its speed in some seven round trips, and the
# bucket takes its time to answer. An upload that takes twice that is at most half of it misjudged, which is as much as
# lies between the two bounds. A shorter one tells no more than that the uplink is at least so fast.
LEAST_S = 2.0
# Below this a busy server's pause would be taken for a slow uplink, and there is little to save.
LEAST_BYTES = 1 << 20
# One odd upload (a download beside it, a phone's network for a minute) is outvoted by two others.
VOTES = 3
# After so long the next upload counts at once, since laptops move. What was known is still the best guess until then:
# most are back where they were, and a wrong guess costs one archive, but forgetting each night would cost two.
STALE_S = 12 * 3600.0


@dataclass(frozen=True)
class Uplink:
    """What is known of an uplink: the last rates in bytes a second, none at first, and the codec for it.

    `told_at_s` is when the last upload told something, in seconds of the wall clock, since it outlives processes.
    """

    rates: tuple[float, ...] = ()
    codec: Codec = Codec.FAST
    told_at_s: float = 0.0

    @property
    def bytes_per_s(self) -> float | None:
        """The estimate; None: nothing is known."""
        return median(self.rates) if self.rates else None

    def observed(self, sent_bytes: int, seconds: float, now_s: float) -> Uplink:
        """After an upload that arrived, `seconds` from its first byte to the answer, at `now_s` of the wall clock."""
        if seconds <= 0 or not _telling(sent_bytes, seconds):
            return self
        rate = sent_bytes / seconds
        fresh = bool(self.rates) and 0 <= now_s - self.told_at_s < STALE_S
        rates = (*self.rates[1:], rate) if fresh else (rate,) * VOTES
        return Uplink(rates, codec_for(median(rates), self.codec), now_s)


def codec_for(bytes_per_s: float, now: Codec) -> Codec:
    """The codec for an uplink of this speed, where `now` has been used so far."""
    if bytes_per_s < DENSE_BELOW:
        return Codec.DENSE
    return Codec.FAST if bytes_per_s > FAST_ABOVE else now


def _telling(sent_bytes: int, seconds: float) -> bool:
    """Whether the upload's rate is the uplink's: it took long enough, or shows that the uplink is fast all the same."""
    return sent_bytes >= LEAST_BYTES and (seconds >= LEAST_S or sent_bytes / seconds > FAST_ABOVE)
