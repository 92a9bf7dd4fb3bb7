"""The scripted clocks of a simulation: the machine's, which also gives the times of files, and the API's."""

from __future__ import annotations

import time
from dataclasses import dataclass

from typing_extensions import override

from syncd.core.clock import SystemClock
from tests.clock import NOON_S, ScriptedClock

MACHINE = SystemClock()
# Ticks a few hundred times a second. The times of files are this clock's, or finer and later, since Linux 6.13.
_FILE_CLOCK = 5  # CLOCK_REALTIME_COARSE (clock_gettime(2))


class SimulatedClock(ScriptedClock):
    """A scripted clock that also translates file times, which the kernel sets, to the time it showed at that moment.

    The machine's own time passes a million times as slowly here, and each simulation begins at a full interval of
    coarse file times: the result depends neither on the machine's speed nor on when the simulation began.
    """

    SLOWER = 1_000_000
    BEGINS_NS = int(NOON_S + 5001) * 1_000_000_000

    def __init__(self) -> None:
        super().__init__()
        self._begun_ns = time.clock_gettime_ns(_FILE_CLOCK)
        self._offset_ns = 0
        self._settings: list[tuple[int, int]] = []

    @override
    def wall_s(self) -> float:
        return self._shown_ns(int(MACHINE.wall_s() * 1e9), self._offset_ns) / 1e9

    @override
    def suspend(self, seconds: float) -> None:
        super().suspend(seconds)
        self.set_wall(seconds)

    def set_wall(self, seconds: float) -> None:
        """Move the wall clock by so many seconds."""
        now_ns = time.time_ns()
        self._settings.append((now_ns, self._offset_ns))
        # In whole milliseconds: neither rounding errors nor what passes meanwhile decides which second it is.
        self._offset_ns += round(seconds * 1e3) * 1_000_000

    def before_write(self) -> None:
        """Wait until the clock of file times has passed the last move of this one, which it may lag behind."""
        while self._settings and time.clock_gettime_ns(_FILE_CLOCK) < self._settings[-1][0]:
            pass

    def wall_at_ns(self, file_ns: int) -> int:
        """Return the time shown at that file time; times from before the simulation are returned unchanged."""
        if file_ns < self._begun_ns:
            return file_ns
        offset_ns = self._offset_ns
        for until_ns, before_ns in reversed(self._settings):
            if file_ns >= until_ns:
                break
            offset_ns = before_ns
        return self._shown_ns(file_ns, offset_ns)

    def _shown_ns(self, machine_ns: int, offset_ns: int) -> int:
        return self.BEGINS_NS + (machine_ns - self._begun_ns) // self.SLOWER + offset_ns


@dataclass
class ServerClock(SystemClock):
    """The API's clock: it follows the boottime of the current simulation's clock, and is never set."""

    simulated: SimulatedClock

    @override
    def monotonic_s(self) -> float:
        return self.simulated.boottime_s()

    @override
    def boottime_s(self) -> float:
        return self.simulated.boottime_s()

    @override
    def wall_s(self) -> float:
        return NOON_S + self.simulated.boottime_s()

    @override
    def sleep(self, seconds: float) -> None:
        """Let no time pass here: the client, which waits for this, has scripted time."""
