"""Detects suspend with a timerfd, without polling.

The timer is on the wall clock, with a time that never comes, and the kernel cancels it when that clock jumps
(timerfd_create(2), TFD_TIMER_CANCEL_ON_SET). The end of a suspend is such a jump. A suspend, unlike a clock that was
set, also increases the difference between boottime and monotonic time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

from syncd.core.clock import Clock

_CLOCK_REALTIME = 0
_CANCEL_ON_SET = 2
_ABSOLUTE = 1
_NEVER_S = 1 << 40
# The two clocks are read one after the other, so a smaller difference is no suspend.
_LEAST_SLEEP_S = 1.0


class _Timer(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class SuspendDetector:
    """Becomes readable after a suspend. If the kernel has no such timer, the next call of `slept_s` detects it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._gap_s = self._gap()
        self._descriptor = -1

    def open(self) -> None:
        self._descriptor = _never_ending_timer()

    def filenos(self) -> list[int]:
        return [self._descriptor] if self._descriptor >= 0 else []

    def slept_s(self) -> float:
        """Return the seconds of suspend since the last call, 0 for none, and reset the timer."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):  # ECANCELED: the clock jumped
                os.read(self._descriptor, 8)
        gap_s = self._gap()
        slept_s, self._gap_s = gap_s - self._gap_s, gap_s
        return slept_s if slept_s >= _LEAST_SLEEP_S else 0.0

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _gap(self) -> float:
        return self._clock.boottime_s() - self._clock.monotonic_s()


def _never_ending_timer() -> int:
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "timerfd_create"):
        return -1
    descriptor: int = library.timerfd_create(_CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return -1
    timer = _Timer(0, 0, _NEVER_S, 0)
    if library.timerfd_settime(descriptor, _ABSOLUTE | _CANCEL_ON_SET, ctypes.byref(timer), None) < 0:
        os.close(descriptor)
        return -1
    return descriptor
