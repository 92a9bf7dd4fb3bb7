"""The only module that reads a clock, so that every decision about time can be tested with made-up times.

Three clocks, each for what it is good at:

monotonic   quiet time, back-off, budgets: stands still while the machine sleeps
boottime    the end of a signed URL: goes on while the machine sleeps
wall        what people read, and file times; may be set to anything at any moment
"""

from __future__ import annotations

import select
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where time comes from; tests pass one that they turn by hand."""

    def monotonic_s(self) -> float:
        """Seconds that stand still in suspend; only differences mean anything."""
        ...

    def boottime_s(self) -> float:
        """Seconds since boot, suspend included; only differences mean anything."""
        ...

    def wall_s(self) -> float:
        """Seconds since 1970-01-01T00:00Z, by the machine's own opinion."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time pass, for pacing; only a signal that raises cuts it short."""
        ...

    def poll(self, poll: select.poll, seconds: float | None) -> list[tuple[int, int]]:
        """Let so much time pass unless one of the descriptors is ready; those that are. None: however long it takes."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def boottime_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()

    def wall_s(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def poll(self, poll: select.poll, seconds: float | None) -> list[tuple[int, int]]:
        return poll.poll(None if seconds is None else seconds * 1e3)


def utc(wall_s: float) -> datetime:
    """An aware UTC time from seconds since 1970, whole seconds."""
    return datetime.fromtimestamp(int(wall_s), UTC)


def stamp(wall_s: float) -> str:
    """The form of every time in `status --json`: `2026-11-24T13:20:11Z`."""
    return utc(wall_s).strftime("%Y-%m-%dT%H:%M:%SZ")
