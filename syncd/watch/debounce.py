"""When a burst of changes is over: after a quiet period, or a longest wait that no constant writer stretches."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Burst:
    """Changes that will be one sync. Times are monotonic seconds."""

    first_s: float
    last_s: float

    def also(self, now_s: float) -> Burst:
        """The burst with one more change."""
        return replace(self, last_s=now_s)


def noted(burst: Burst | None, now_s: float) -> Burst:
    """The burst after a change that was noticed now."""
    return Burst(now_s, now_s) if burst is None else burst.also(now_s)


def due_s(burst: Burst, quiet_s: float, max_wait_s: float) -> float:
    """The monotonic second at which the burst is to be synced, if nothing else comes."""
    return min(burst.last_s + quiet_s, burst.first_s + max_wait_s)
