"""The reuse of a kept connection, by its idle time and a suspend of the machine."""

from __future__ import annotations

import pytest

from syncd.remote.keepalive import (
    KEEP_S,
    LEAST_SUSPEND_S,
    ROUTE_TRUSTED_S,
    ConnectionTime,
    ReuseDecision,
    idle_at_s,
    reuse_decision,
)

LAST = ConnectionTime(1_000.0, 5_000.0)


@pytest.mark.parametrize(
    ("idle_s", "slept_s", "expected"),
    [
        (0.0, 0.0, ReuseDecision.USE),
        (ROUTE_TRUSTED_S - 0.1, 0.0, ReuseDecision.USE),
        (ROUTE_TRUSTED_S, 0.0, ReuseDecision.CHECK_ROUTE),
        (60.0, 0.0, ReuseDecision.CHECK_ROUTE),
        (KEEP_S - 0.1, 0.0, ReuseDecision.CHECK_ROUTE),
        (KEEP_S, 0.0, ReuseDecision.CLOSE),
        (86400.0, 0.0, ReuseDecision.CLOSE),
        (0.0, LEAST_SUSPEND_S, ReuseDecision.CLOSE),
        (0.0, 0.5 * LEAST_SUSPEND_S, ReuseDecision.USE),
        (60.0, 28800.0, ReuseDecision.CLOSE),
        (ROUTE_TRUSTED_S, 0.5 * LEAST_SUSPEND_S, ReuseDecision.CHECK_ROUTE),
    ],
)
def test_reuse(idle_s: float, slept_s: float, expected: ReuseDecision) -> None:
    """It is used as it is at first, later after a check of the route, and not after a long idle time or a suspend."""
    now = ConnectionTime(LAST.monotonic_s + idle_s, LAST.boottime_s + idle_s + slept_s)
    assert reuse_decision(LAST, now) is expected


def test_the_end_of_a_burst() -> None:
    """The timer closes exactly the connections that would not be used any more."""
    ends_s = idle_at_s(LAST)
    assert ends_s == LAST.monotonic_s + KEEP_S
    assert reuse_decision(LAST, ConnectionTime(ends_s, LAST.boottime_s + KEEP_S)) is ReuseDecision.CLOSE
