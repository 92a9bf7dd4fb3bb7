"""How often a workspace without events is scanned."""

from __future__ import annotations

import pytest

from syncd.watch.polling import poll_interval_s


@pytest.mark.parametrize(("took_s", "interval_s"), [(0.0, 2.0), (0.1, 2.0), (0.2, 4.0), (30.0, 600.0)])
def test_poll_interval(took_s: float, interval_s: float) -> None:
    """Every two seconds, and for at most a twentieth of the time."""
    assert poll_interval_s(took_s) == interval_s
