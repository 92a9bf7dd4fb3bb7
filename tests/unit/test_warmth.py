"""How far a kept connection is trusted, by how long it was idle and whether the machine slept."""

from __future__ import annotations

import pytest

from syncd.remote.keepalive import KEEP_S, LEAST_SLEEP_S, SURE_S, Moment, Trust, cold_at_s, trust

LAST = Moment(1_000.0, 5_000.0)


@pytest.mark.parametrize(
    ("idle_s", "slept_s", "expected"),
    [
        (0.0, 0.0, Trust.USE),
        (SURE_S - 0.1, 0.0, Trust.USE),
        (SURE_S, 0.0, Trust.LOOK),
        (60.0, 0.0, Trust.LOOK),
        (KEEP_S - 0.1, 0.0, Trust.LOOK),
        (KEEP_S, 0.0, Trust.CLOSE),
        (86400.0, 0.0, Trust.CLOSE),
        (0.0, LEAST_SLEEP_S, Trust.CLOSE),
        (0.0, 0.5 * LEAST_SLEEP_S, Trust.USE),
        (60.0, 28800.0, Trust.CLOSE),
        (SURE_S, 0.5 * LEAST_SLEEP_S, Trust.LOOK),
    ],
)
def test_trust(idle_s: float, slept_s: float, expected: Trust) -> None:
    """Used as it is at first, then after a look at the network, and not at all after the burst or a sleep."""
    now = Moment(LAST.monotonic_s + idle_s, LAST.boottime_s + idle_s + slept_s)
    assert trust(LAST, now) is expected


def test_the_end_of_a_burst() -> None:
    """What is closed when the timer goes off is what is not trusted any more."""
    ends_s = cold_at_s(LAST)
    assert ends_s == LAST.monotonic_s + KEEP_S
    assert trust(LAST, Moment(ends_s, LAST.boottime_s + KEEP_S)) is Trust.CLOSE
