"""How long connections are kept, and when a kept one may be used again.

They are kept for the burst of work that a developer's day is made of: a save every few minutes finds them open, and no
handshake is on its way. Front ends close what is idle after one to ten minutes (AWS documents 60 s for its load
balancers, Google 610 s); what they closed is seen before it is used, so keeping it longer than they do costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# After the last exchange. Longer gains little: few servers would keep their side.
KEEP_S = 300.0
# One used a moment ago has not been moved to another network under way: not worth a look.
SURE_S = 20.0
# Clocks are read one after the other: what is less than this is no sleep.
LEAST_SLEEP_S = 1.0


@dataclass(frozen=True)
class ConnectionTime:
    """One instant by both clocks; what boottime gains on monotonic was slept through."""

    monotonic_s: float
    boottime_s: float


class ReuseDecision(Enum):
    """What may be done with kept connections."""

    USE = "in use until a moment ago"
    LOOK = "to be used if the network is still the same"
    CLOSE = "idle for too long, or from before a sleep"


def idle_at_s(last: ConnectionTime) -> float:
    """When connections used last at that moment are to be closed, in monotonic seconds."""
    return last.monotonic_s + KEEP_S


def reuse_decision(last: ConnectionTime, now: ConnectionTime) -> ReuseDecision:
    """How far connections are trusted `now` that were used `last`."""
    idle_s = now.monotonic_s - last.monotonic_s
    slept_s = now.boottime_s - last.boottime_s - idle_s
    if now.monotonic_s >= idle_at_s(last) or slept_s >= LEAST_SLEEP_S:
        return ReuseDecision.CLOSE
    return ReuseDecision.LOOK if idle_s >= SURE_S else ReuseDecision.USE
