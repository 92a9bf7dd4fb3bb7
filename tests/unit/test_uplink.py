"""The estimate of the uplink from uploads, and the codec that follows."""

from __future__ import annotations

from statistics import median

import pytest

from syncd.archive.archive_format import Codec
from syncd.remote.bucket import DENSE_BELOW, FAST_ABOVE, LEAST_BYTES, LEAST_S, STALE_S, Uplink, codec_for

NOW_S = 1_795_526_411.0
MBIT = 1e6 / 8
ARCHIVE = 200_000_000


def after(*mbit_per_s: float, start: Uplink | None = None, every_s: float = 60.0) -> Uplink:
    """Return the uplink after uploads at these speeds, one a minute."""
    uplink = start or Uplink()
    for number, speed in enumerate(mbit_per_s):
        uplink = uplink.observed(ARCHIVE, ARCHIVE / (speed * MBIT), NOW_S + number * every_s)
    return uplink


def test_nothing_known() -> None:
    """Without an upload there is no estimate, and the codec is the fast one."""
    assert Uplink().bytes_per_s is None
    assert Uplink().codec is Codec.FAST


@pytest.mark.parametrize(
    ("mbit_per_s", "codec"),
    [
        ([1], Codec.DENSE),
        ([49], Codec.DENSE),
        ([51], Codec.FAST),
        ([8000], Codec.FAST),
        ([20, 8000], Codec.DENSE),
        ([20, 8000, 20], Codec.DENSE),
        ([20, 8000, 20, 8000], Codec.FAST),
        ([20, 8000, 8000], Codec.FAST),
        ([300, 1], Codec.FAST),
        ([300, 1, 300, 300], Codec.FAST),
        ([300, 1, 1], Codec.DENSE),
        ([20, 75, 75, 75], Codec.DENSE),
        ([20, 75, 75, 99], Codec.DENSE),
        ([20, 101, 101], Codec.FAST),
        ([300, 75, 75, 75], Codec.FAST),
        ([300, 51, 51, 51], Codec.FAST),
    ],
)
def test_the_codec_follows_the_uplink(mbit_per_s: list[float], codec: Codec) -> None:
    """Two uploads of three change the codec, one alone never does, and between the bounds it stays."""
    assert after(*mbit_per_s).codec is codec


@pytest.mark.parametrize("now", Codec)
def test_the_bounds(now: Codec) -> None:
    """At the bounds themselves the codec stays."""
    assert codec_for(DENSE_BELOW, now) is now
    assert codec_for(FAST_ABOVE, now) is now


def test_the_bounds_enclose_the_break_even() -> None:
    """The bounds are on both sides of the speed at which sending gains what packing costs: 32 MB in 2.8 s."""
    assert DENSE_BELOW < (212e6 - 180e6) / (4.0 - 1.2) < FAST_ABOVE


@pytest.mark.parametrize(
    ("sent_bytes", "seconds"),
    [
        (3_000, 0.15),
        (LEAST_BYTES - 1, 60.0),
        (LEAST_BYTES - 1, 0.001),
        (LEAST_BYTES, 1.0),
        (10_000_000, LEAST_S - 0.01),
        (ARCHIVE, 0.0),
        (ARCHIVE, -1.0),
        (0, 5.0),
    ],
)
def test_uploads_that_do_not_count(sent_bytes: int, seconds: float) -> None:
    """An upload that is mostly round trips, or that took no time, changes nothing."""
    for before in (Uplink(), after(20), after(300)):
        assert before.observed(sent_bytes, seconds, NOW_S) is before


@pytest.mark.parametrize(
    ("sent_bytes", "seconds"), [(LEAST_BYTES, 60.0), (LEAST_BYTES, 0.01), (ARCHIVE, 0.05), (ARCHIVE, 600.0)]
)
def test_uploads_that_count(sent_bytes: int, seconds: float) -> None:
    """The first upload that was long enough, or fast, is the estimate."""
    assert Uplink().observed(sent_bytes, seconds, NOW_S).bytes_per_s == pytest.approx(sent_bytes / seconds)


def test_recent_uploads_count() -> None:
    """The estimate is the median of the last three; earlier ones are forgotten."""
    speeds = [20.0, 30.0, 25.0, 40.0, 35.0]
    assert after(*speeds).bytes_per_s == pytest.approx(median(speeds[-3:]) * MBIT)


@pytest.mark.parametrize("later_s", [STALE_S, 30 * 86400.0, -1.0, -86400.0])
def test_an_old_estimate_is_replaced_at_once(later_s: float) -> None:
    """After half a day, or with a clock that was set back, the next measurement alone counts."""
    home = after(20)
    office = home.observed(ARCHIVE, 1.0, NOW_S + later_s)
    assert (office.codec, office.bytes_per_s) == (Codec.FAST, ARCHIVE)
    assert home.observed(1_000, 1.0, NOW_S + later_s) is home


def test_a_young_estimate_is_not_replaced_at_once() -> None:
    """Within half a day one upload does not change the median."""
    assert after(20).observed(ARCHIVE, 1.0, NOW_S + STALE_S - 1).codec is Codec.DENSE
