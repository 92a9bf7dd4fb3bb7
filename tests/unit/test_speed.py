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


def test_what_was_done_before_the_first_sample_is_no_speed() -> None:
    """Progress before the first sample does not count for the rate."""
    speed = Speed().observed(0, 900 * MIB).observed(2, 902 * MIB)
    assert speed.bytes_per_s(2) == pytest.approx(MIB)


def test_a_stall() -> None:
    """Without samples the rate falls, and after the window there is no time left."""
    speed = _seen(lambda t: round(t * MIB), 10)
    rates = [speed.bytes_per_s(1_010 + later) for later in (0, 2, 4, 6)]
    assert all(rate is not None for rate in rates)
    assert rates == sorted(rates, reverse=True, key=lambda rate: rate or 0)
    assert rates[2] == pytest.approx(MIB / 2, rel=0.05)
    assert speed.bytes_per_s(1_010 + WINDOW_S) == 0
    assert speed.seconds_left(20 * MIB, 1_010 + WINDOW_S) is None


def test_it_goes_on_after_a_stall() -> None:
    """A window after the transfer continues, the stall no longer counts."""
    speed = _seen(lambda t: round(t * MIB), 10)
    for step in range(100):
        speed = speed.observed(1_060 + step / 10, 10 * MIB + step * MIB // 10)
    assert speed.bytes_per_s(1_069.9) == pytest.approx(MIB, rel=0.02)


def test_fewer_bytes_are_a_fresh_start() -> None:
    """An upload that starts again is measured from its first byte."""
    speed = _seen(lambda t: round(t * MIB), 10).observed(1_012, 0)
    assert speed.bytes_per_s(1_012) is None
    speed = speed.observed(1_014, 4 * MIB)
    assert speed.bytes_per_s(1_014) == pytest.approx(2 * MIB)


def test_a_new_speed_counts_within_a_window() -> None:
    """A changed speed is the rate after one window."""
    speed = _seen(lambda t: round(t * MIB / 10) if t < 30 else round(3 * MIB + (t - 30) * 5 * MIB), 30 + WINDOW_S)
    assert speed.bytes_per_s(1_030 + WINDOW_S) == pytest.approx(5 * MIB, rel=0.02)


def test_bursts_are_evened_out() -> None:
    """Two MiB every other second are about one MiB a second at any time."""
    speed = Speed()
    for second in range(40):
        speed = speed.observed(second, second // 2 * 2 * MIB)
        if second >= WINDOW_S:
            assert speed.bytes_per_s(second) == pytest.approx(MIB, rel=0.3)


def test_rare_samples_are_taken_as_even() -> None:
    """Two samples a minute give a rate, as if the progress between them was even."""
    speed = Speed().observed(0, 0).observed(30, 30 * MIB).observed(60, 60 * MIB)
    assert speed.bytes_per_s(60) == pytest.approx(MIB)


def test_all_done_takes_no_time() -> None:
    """Nothing is left of a finished transfer, of more than all, and of nothing."""
    assert Speed().observed(1, MIB).seconds_left(MIB, 1) == 0
    assert Speed().observed(1, 2 * MIB).seconds_left(MIB, 1) == 0
    assert Speed().seconds_left(0, 1) == 0


def test_two_samples_at_one_time_divide_by_nothing() -> None:
    """Two samples at the same time cause no error; later the rate is right."""
    speed = Speed().observed(1, 0).observed(1, 5).observed(1, 10).observed(3, 20)
    assert speed.bytes_per_s(1) is None
    assert speed.bytes_per_s(3) == pytest.approx(10)


def test_a_million_samples_are_a_few_numbers() -> None:
    """A window keeps some dozens of samples, however many there were."""
    speed = _seen(lambda t: round(t * MIB), 20, every_s=0.001)
    assert len(speed.samples) <= 4 * WINDOW_S + 3
    assert speed.bytes_per_s(1_020) == pytest.approx(MIB, rel=0.01)
