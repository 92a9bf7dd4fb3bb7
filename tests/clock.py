"""A scripted clock, so that no test waits for time to pass."""

from __future__ import annotations

import select
from dataclasses import dataclass, field

# 2026-11-24T13:20:11Z
NOON_S = 1_795_526_411.0
# By this clock every file is old enough for its stamp to be trusted.
LATER_S = 4_000_000_000.0


@dataclass
class ScriptedClock:
    """The three clocks of `syncd.core.clock.Clock`; only `go_on`, `suspend` and `sleep` move them."""

    monotonic: float = 1_000.0
    boottime: float = 5_000.0
    wall: float = NOON_S
    slept: list[float] = field(default_factory=list)

    def go_on(self, seconds: float) -> None:
        """Let time pass while the machine runs."""
        self.monotonic += seconds
        self.suspend(seconds)

    def suspend(self, seconds: float) -> None:
        """Let time pass while the machine sleeps."""
        self.boottime += seconds
        self.wall += seconds

    def monotonic_s(self) -> float:
        return self.monotonic

    def boottime_s(self) -> float:
        return self.boottime

    def wall_s(self) -> float:
        return self.wall

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.go_on(seconds)

    def poll(self, poll: select.poll, seconds: float | None) -> list[tuple[int, int]]:
        found = poll.poll(None if seconds is None else 0)
        if not found and seconds:
            self.sleep(seconds)
        return found
