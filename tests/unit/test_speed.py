"""Speed and time left of a transfer that moves, stalls or starts again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from syncd.report.speed import LEAST_S, WINDOW_S, Speed

MIB = 1 << 20


def _seen(done: Callable[[float], int], until_s: float, every_s: float = 0.1, start_s: float = 1_000.0) -> Speed:
    """Return the speed after samples of `done(seconds since the start)`."""
    speed = Speed()
    for step in range(round(until_s / every_s) + 1):
        speed = speed.observed(start_s + step * every_s, done(step * every_s))
    return speed


def test_a_steady_flow_has_its_rate_and_its_end() -> None:
    """One MiB a second is measured as such, and gives the time left."""
    speed = _seen(lambda t: round(t * MIB), 20)
    assert speed.bytes_per_s(1_020) == pytest.approx(MIB, rel=0.01)
    assert speed.seconds_left(50 * MIB, 1_020) == pytest.approx(30, rel=0.01)


def test_nothing_is_known_at_first() -> None:
    """No sample, one sample, and the burst into the kernel's buffers give no rate."""
    assert Speed().bytes_per_s(5) is None
    assert Speed().seconds_left(MIB, 5) is None
    assert Speed().observed(5, MIB).bytes_per_s(5) is None
    burst = Speed().observed(5, 0).observed(5.01, 4 * MIB)
    assert burst.bytes_per_s(5 + LEAST_S * 0.9) is None
    assert burst.bytes_per_s(5 + LEAST_S) == pytest.approx(4 * MIB / LEAST_S)


def test_a_stall() -> None:
    """Without samples the rate falls, and after the window there is no time left."""
    speed = _seen(lambda t: round(t * MIB), 10)
    rates = [speed.bytes_per_s(1_010 + later) for later in (0, 2, 4, 6)]
    assert all(rate is not None for rate in rates)
    assert rates == sorted(rates, reverse=True, key=lambda rate: rate or 0)
    assert rates[2] == pytest.approx(MIB / 2, rel=0.05)
    assert speed.bytes_per_s(1_010 + WINDOW_S) == 0
    assert speed.seconds_left(20 * MIB, 1_010 + WINDOW_S) is None


def test_bursts_are_evened_out() -> None:
    """Two MiB every other second are about one MiB a second at any time."""
    speed = Speed()
    for second in range(40):
        speed = speed.observed(second, second // 2 * 2 * MIB)
        if second >= WINDOW_S:
            assert speed.bytes_per_s(second) == pytest.approx(MIB, rel=0.3)


def test_nothing_is_left_at_the_end() -> None:
    """All bytes are done, whatever the speed; with one byte left it has to be known."""
    speed = Speed().observed(5, MIB)
    assert (speed.seconds_left(MIB, 5), speed.seconds_left(MIB + 1, 5)) == (0.0, None)


def test_the_samples_that_are_kept() -> None:
    """Those that come close replace each other; of those before the window the newest is kept, which it begins with."""
    speed = Speed()
    for now_s, kept in (
        (1000.0, [1000.0]),
        (1000.125, [1000.0, 1000.125]),
        (1000.1875, [1000.0, 1000.1875]),
        (1000.25, [1000.0, 1000.1875, 1000.25]),
        (1008.1875, [1000.1875, 1000.25, 1008.1875]),
        (1020.0, [1008.1875, 1020.0]),
    ):
        speed = speed.observed(now_s, int(now_s - 1000))
        assert [at_s for at_s, _ in speed.samples] == kept
