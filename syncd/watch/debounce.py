"""Decides when a burst of changes is synced: after a quiet period, or at the latest after the max wait."""

from __future__ import annotations

from msgspec import Struct


class Burst(Struct, frozen=True):
    """The times of the first and the last of the changes that are synced together, in monotonic seconds."""

    first_s: float
    last_s: float


def extend(burst: Burst | None, now_s: float) -> Burst:
    """Return the burst with one more change, at this time."""
    return Burst(now_s if burst is None else burst.first_s, now_s)


def due_s(burst: Burst, quiet_s: float, max_wait_s: float) -> float:
    """Return the monotonic second at which the burst is synced if no further change comes."""
    return min(burst.last_s + quiet_s, burst.first_s + max_wait_s)
