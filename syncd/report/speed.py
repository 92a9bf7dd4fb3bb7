"""Estimates the current speed of a transfer and the time left, from samples."""

from __future__ import annotations

from msgspec import Struct

# The speed is an average over this time: shorter bursts are evened out.
WINDOW_S = 8.0
# A new connection is still finding its speed, and its progress comes in steps: in this time the speed is unknown.
LEAST_S = 1.0
# Samples that come closer than this replace each other, so that a window of many small blocks is a few samples.
_STEP_S = 0.25


class Speed(Struct, frozen=True):
    """Samples of (seconds, bytes done), oldest first; the first may be older than the window, which it begins.

    Seconds are of any clock that does not go back.
    """

    samples: tuple[tuple[float, int], ...] = ()

    def observed(self, now_s: float, done_bytes: int) -> Speed:
        """The speed with one sample more. Fewer bytes than before are a new start, as of an upload that is repeated."""
        sample = (now_s, done_bytes)
        if not self.samples or done_bytes < self.samples[-1][1]:
            return Speed((sample,))
        kept = self.samples
        if len(kept) > 1 and now_s - kept[-2][0] < _STEP_S:
            kept = kept[:-1]
        while len(kept) > 1 and kept[1][0] <= now_s - WINDOW_S:
            kept = kept[1:]
        return Speed((*kept, sample))

    def bytes_per_s(self, now_s: float) -> float | None:
        """The average over the window that ends now, which falls while nothing moves; None: too little is known."""
        if not self.samples:
            return None
        began_s, before = next(
            (each for each in reversed(self.samples) if each[0] <= now_s - WINDOW_S), self.samples[0]
        )
        return (self.samples[-1][1] - before) / (now_s - began_s) if now_s - began_s >= LEAST_S else None

    def seconds_left(self, total_bytes: int, now_s: float) -> float | None:
        """The time until `total_bytes` are done at this speed; None: nothing moves, or too little is known."""
        rest = total_bytes - self.samples[-1][1] if self.samples else total_bytes
        if rest <= 0:
            return 0.0
        rate = self.bytes_per_s(now_s)
        return rest / rate if rate else None
