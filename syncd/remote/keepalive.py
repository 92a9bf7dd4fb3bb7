"""Rules for kept connections: how long they are kept, and when one may be reused.

They are kept for a developer's burst of work: a save every few minutes finds them open, and needs no handshake. Front
ends close what is idle after one to ten minutes (AWS documents 60 s for its load balancers, Google 610 s). A connection
that they closed is noticed before it is used, so keeping it longer than they do costs nothing.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

# After the last exchange. Longer gains little: few servers keep their side open.
KEEP_S = 300.0
# After so short a time the network has hardly changed: the route is not checked.
ROUTE_TRUSTED_S = 20.0
# Two clocks are read one after the other: a smaller difference is no suspend.
LEAST_SUSPEND_S = 1.0


class ConnectionTime(Struct, frozen=True):
    """One instant by both clocks; boottime gains on monotonic during suspend."""

    monotonic_s: float
    boottime_s: float


class ReuseDecision(Enum):
    """A decision about a kept connection."""

    USE = "used a moment ago"
    CHECK_ROUTE = "use if the route is unchanged"
    CLOSE = "idle for too long, or from before a suspend"


def idle_at_s(last: ConnectionTime) -> float:
    """Return the monotonic second at which connections last used then are closed."""
    return last.monotonic_s + KEEP_S


def reuse_decision(last: ConnectionTime, now: ConnectionTime) -> ReuseDecision:
    """Decide `now` about connections that were last used at `last`."""
    idle_s = now.monotonic_s - last.monotonic_s
    slept_s = now.boottime_s - last.boottime_s - idle_s
    if now.monotonic_s >= idle_at_s(last) or slept_s >= LEAST_SUSPEND_S:
        return ReuseDecision.CLOSE
    return ReuseDecision.CHECK_ROUTE if idle_s >= ROUTE_TRUSTED_S else ReuseDecision.USE
