"""The only module that reads a clock, so that every decision about time can be tested with scripted times.

There are three clocks:

monotonic   for quiet periods, back-off and budgets: it stops while the machine sleeps
boottime    for the expiry of signed URLs: it goes on while the machine sleeps
wall        for times that people read, and file times: it may be set to anything at any moment
"""

from __future__ import annotations

import select
import time
from datetime import UTC, datetime
from typing import Protocol

from msgspec import Struct

_LONGEST_POLL_S = 1e6  # poll(2) takes no more


class Clock(Protocol):
    """A source of time; tests pass one with scripted time."""

    def monotonic_s(self) -> float:
        """Return seconds that do not count suspend; only differences mean anything."""
        ...

    def boottime_s(self) -> float:
        """Return seconds since boot, suspend included; only differences mean anything."""
        ...

    def wall_s(self) -> float:
        """Return seconds since 1970-01-01T00:00Z, as the machine's clock is set."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time pass, for pacing; only a signal handler that raises cuts it short."""
        ...

    def poll(self, poll: select.poll, seconds: float | None) -> list[tuple[int, int]]:
        """Wait until a descriptor is ready, at most so many seconds (None: no limit); return those that are ready.

        After some days it may return with none.
        """
        ...


class Moment(Struct, frozen=True):
    """The seconds of all three clocks at one moment."""

    monotonic_s: float
    boottime_s: float
    wall_s: float

    @classmethod
    def now(cls, clock: Clock) -> Moment:
        return cls(clock.monotonic_s(), clock.boottime_s(), clock.wall_s())

    def age_s(self, now: Moment) -> float:
        """Return the seconds from this moment until `now`, by the clock that counted most.

        A suspend stops the first clock, a pause of a virtual machine the first two. The third may be set: ahead, that
        makes the moment older than it is; back, it makes it no newer.
        """
        passed_s = now.boottime_s - self.boottime_s, now.wall_s - self.wall_s
        return max(now.monotonic_s - self.monotonic_s, *passed_s)


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
        return poll.poll(None if seconds is None else min(seconds, _LONGEST_POLL_S) * 1e3)


def utc(wall_s: float) -> datetime:
    """Return an aware UTC time, in whole seconds, from seconds since 1970."""
    return datetime.fromtimestamp(int(wall_s), UTC)


def stamp(wall_s: float) -> str:
    """Format a time as in `status --json`: `2026-11-24T13:20:11Z`."""
    return utc(wall_s).strftime("%Y-%m-%dT%H:%M:%SZ")


def day_and_time(wall_s: float) -> str:
    """Format a time for people, in this machine's zone: `Tue 2026-11-24 13:20:11`."""
    return f"{utc(wall_s).astimezone():%a %Y-%m-%d %H:%M:%S}"


def seconds_of(stamp: str | None) -> float | None:
    """Parse a time of the status document into seconds since 1970; None if there is none or it is not a time."""
    if stamp is None:
        return None
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except (ValueError, OverflowError):
        return None
