"""Runs `python -m syncd` with shifted clocks: `shifted_clocks.py SHIFTS ALARM PYTHON -m syncd ARGS…`."""

from __future__ import annotations

import mmap
import os
import runpy
import struct
import sys
import time

from syncd.core.clock import SystemClock
from syncd.watch import suspend_detector

SHIFTS = struct.Struct("dd")


class Shifts:
    """The offsets of a daemon's boottime and wall clock, in a file that several processes map."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), SHIFTS.size)

    @property
    def boottime(self) -> float:
        return float(SHIFTS.unpack(self._map[:])[0])

    @property
    def wall(self) -> float:
        return float(SHIFTS.unpack(self._map[:])[1])

    def set(self, boottime: float, wall: float) -> None:
        self._map[:] = SHIFTS.pack(boottime, wall)


def _run_shifted(shifts: str, alarm: str, args: list[str]) -> None:
    """Run `python -m syncd ARGS` with shifted clocks."""
    shifted = Shifts(shifts)
    boottime_s, wall_s = SystemClock.boottime_s, time.time  # noqa: TID251 - to shift it
    SystemClock.boottime_s = lambda self: boottime_s(self) + shifted.boottime  # type: ignore[method-assign]
    time.time = lambda: wall_s() + shifted.wall  # noqa: TID251 - which gzip asks too
    suspend_detector._never_ending_timer = lambda: os.open(alarm, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    sys.argv = ["syncd", *args]
    runpy.run_module("syncd", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    # Its folder is first in the path, and nothing in it may hide what syncd imports.
    sys.path.pop(0)
    _run_shifted(sys.argv[1], sys.argv[2], sys.argv[6:])
