"""Reuse of a kept connection, by its idle time and whether the machine was suspended."""

from __future__ import annotations

import pytest

from syncd.remote.keepalive import (
    KEEP_S,
    LEAST_SLEEP_S,
    SURE_S,
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
        (SURE_S - 0.1, 0.0, ReuseDecision.USE),
        (SURE_S, 0.0, ReuseDecision.LOOK),
        (60.0, 0.0, ReuseDecision.LOOK),
        (KEEP_S - 0.1, 0.0, ReuseDecision.LOOK),
        (KEEP_S, 0.0, ReuseDecision.CLOSE),
        (86400.0, 0.0, ReuseDecision.CLOSE),
        (0.0, LEAST_SLEEP_S, ReuseDecision.CLOSE),
        (0.0, 0.5 * LEAST_SLEEP_S, ReuseDecision.USE),
        (60.0, 28800.0, ReuseDecision.CLOSE),
        (SURE_S, 0.5 * LEAST_SLEEP_S, ReuseDecision.LOOK),
    ],
)
def test_reuse(idle_s: float, slept_s: float, expected: ReuseDecision) -> None:
    """It is reused at first, then after a check of the network, and never after the burst or a suspend."""
    now = ConnectionTime(LAST.monotonic_s + idle_s, LAST.boottime_s + idle_s + slept_s)
    assert reuse_decision(LAST, now) is expected


def test_the_end_of_a_burst() -> None:
    """The timer closes exactly the connections that are no longer reused."""
    ends_s = idle_at_s(LAST)
    assert ends_s == LAST.monotonic_s + KEEP_S
    assert reuse_decision(LAST, ConnectionTime(ends_s, LAST.boottime_s + KEEP_S)) is ReuseDecision.CLOSE
