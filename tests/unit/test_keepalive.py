"""The reuse of a kept connection, by its idle time and a suspend of the machine."""

from __future__ import annotations

import pytest

from syncd.remote.http_client import (
    KEEP_S,
    LEAST_SUSPEND_S,
    ROUTE_TRUSTED_S,
    ConnectionTime,
    idle_at_s,
    is_over,
    may_be_reused,
)

LAST = ConnectionTime(1_000.0, 5_000.0)


@pytest.mark.parametrize(
    ("idle_s", "slept_s", "over", "reused_without_a_route"),
    [
        (0.0, 0.0, False, True),
        (ROUTE_TRUSTED_S - 0.1, 0.0, False, True),
        (ROUTE_TRUSTED_S, 0.0, False, False),
        (KEEP_S - 0.1, 0.0, False, False),
        (KEEP_S, 0.0, True, False),
        (86400.0, 0.0, True, False),
        (0.0, LEAST_SUSPEND_S, True, False),
        (0.0, 0.5 * LEAST_SUSPEND_S, False, True),
        (60.0, 28800.0, True, False),
        (ROUTE_TRUSTED_S, 0.5 * LEAST_SUSPEND_S, False, False),
    ],
)
def test_reuse(idle_s: float, slept_s: float, *, over: bool, reused_without_a_route: bool) -> None:
    """It is used as it is at first, later if its route is there, and not after a long idle time or a suspend."""
    now = ConnectionTime(LAST.monotonic_s + idle_s, LAST.boottime_s + idle_s + slept_s)
    assert is_over(LAST, now) is over
    assert may_be_reused(LAST, now, None) is reused_without_a_route


def test_the_end_of_a_burst() -> None:
    """The timer closes exactly the connections that would not be used any more."""
    ends_s = idle_at_s(LAST)
    assert ends_s == LAST.monotonic_s + KEEP_S
    assert is_over(LAST, ConnectionTime(ends_s, LAST.boottime_s + KEEP_S))
