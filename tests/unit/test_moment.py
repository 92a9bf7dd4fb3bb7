"""How old a moment is, by clocks that stop, jump and are set."""

from __future__ import annotations

import pytest

from syncd.core.clock import Moment


@pytest.mark.parametrize(
    ("monotonic_s", "boottime_s", "wall_s", "age_s"),
    [
        (3.0, 3.0, 3.0, 3.0),
        (1.0, 61.0, 61.0, 61.0),  # a suspend
        (1.0, 1.0, 61.0, 61.0),  # a pause of the virtual machine
        (1.0, 1.0, -3600.0, 1.0),  # the wall clock was set back
        (1.0, 61.0, -3600.0, 61.0),
    ],
)
def test_the_clock_that_counted_most_counts(monotonic_s: float, boottime_s: float, wall_s: float, age_s: float) -> None:
    """Nothing that a clock does makes it newer."""
    moment = Moment(1_000.0, 5_000.0, 1_700_000_000.0)
    now = Moment(1_000.0 + monotonic_s, 5_000.0 + boottime_s, 1_700_000_000.0 + wall_s)
    assert moment.age_s(now) == age_s
