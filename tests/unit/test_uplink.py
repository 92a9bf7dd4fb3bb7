"""The estimate of the uplink from uploads, and the codec that follows."""

from __future__ import annotations

import pytest

from syncd.archive.archive_format import Codec
from syncd.remote.bucket import LEAST_BYTES, LEAST_S, STALE_S, Uplink

NOW_S = 1_795_526_411.0
MBIT = 1e6 / 8
ARCHIVE = 200_000_000


def after(*mbit_per_s: float, start: Uplink | None = None, every_s: float = 60.0) -> Uplink:
    """Return the uplink after uploads at these speeds, one a minute."""
    uplink = start or Uplink()
    for number, speed in enumerate(mbit_per_s):
        uplink = uplink.observed(ARCHIVE, ARCHIVE / (speed * MBIT), NOW_S + number * every_s)
    return uplink


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


@pytest.mark.parametrize("later_s", [STALE_S, 30 * 86400.0, -1.0, -86400.0])
def test_an_old_estimate_is_replaced_at_once(later_s: float) -> None:
    """After half a day, or with a clock that was set back, the next measurement alone counts."""
    home = after(20)
    office = home.observed(ARCHIVE, 1.0, NOW_S + later_s)
    assert (office.codec, office.bytes_per_s) == (Codec.FAST, ARCHIVE)
    assert home.observed(1_000, 1.0, NOW_S + later_s) is home
