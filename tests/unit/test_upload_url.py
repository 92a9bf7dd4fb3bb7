"""The expiry of a signed URL, by its own times and the server's clock, and the last moment to begin an upload."""

from __future__ import annotations

import pytest

from syncd.remote.upload_url import UploadUrl, is_usable, upload_url_from

# 2026-11-24T12:00:00Z, as the URLs below were signed.
SIGNED_S = 1_795_521_600.0
BOOT_S = 500.0


def url(life_s: object = 1800, date: str = "20261124T120000Z", names: tuple[str, str] = ("Date", "Expires")) -> str:
    return f"https://h/o?X-Goog-{names[0]}={date}&X-Goog-{names[1]}={life_s}&X-Goog-Signature=5ECRET"


@pytest.mark.parametrize(
    ("server_wall_s", "wall_s", "ends_in_s"),
    [
        (SIGNED_S, SIGNED_S, 1800),
        (SIGNED_S + 60, SIGNED_S + 60, 1740),
        (SIGNED_S + 0.5, SIGNED_S, 1799.5),
        (SIGNED_S, SIGNED_S + 86_400, 1800),
        (SIGNED_S, SIGNED_S - 86_400, 1800),
        (None, SIGNED_S + 100, 1700),
        (None, SIGNED_S - 100, 1800),
        (SIGNED_S - 9e9, SIGNED_S, 1800),
        (SIGNED_S + 1700, SIGNED_S, 100),
        (SIGNED_S + 1800, SIGNED_S, 1800),
        (SIGNED_S + 2000, SIGNED_S, 1800),
        (None, SIGNED_S + 7200, 1800),
    ],
    ids=[
        "no skew",
        "signed a minute ago",
        "signed just now",
        "ours ahead",
        "ours behind",
        "no Date",
        "no Date, behind",
        "mad Date",
        "nearly over",
        "over",
        "a Date hours ahead",
        "no Date, hours ahead",
    ],
)
def test_expiry_is_in_the_servers_time(server_wall_s: float | None, wall_s: float, ends_in_s: float) -> None:
    """The answer's Date corrects for this machine's clock, whichever way it is off; without one this clock is used."""
    upload_url = upload_url_from(url(), 5, server_wall_s, BOOT_S, wall_s)
    assert (upload_url.ends_s - BOOT_S, upload_url.life_s) == (ends_in_s, 1800)


@pytest.mark.parametrize(
    "odd",
    [
        "https://h/o",
        "",
        "http://[bad/o?X-Goog-Date=20261124T120000Z&X-Goog-Expires=1",
        url("soon"),
        url(""),
        url(0),
        url(-5),
        url("9" * 400),
        url("9" * 5000),
        url(date="2026-11-24"),
        url(date="99999999T120000Z"),
        url().replace("X-Goog-Date", "X-Goog-Day"),
    ],
)
@pytest.mark.parametrize(("minutes", "life_s"), [(30, 1800.0), (0, 0.0), (-1, 0.0)])
def test_without_readable_times_the_minutes_count(odd: str, minutes: int, life_s: float) -> None:
    """A URL without valid times lives as long as the answer says, from the answer on."""
    assert upload_url_from(odd, minutes, SIGNED_S, BOOT_S, SIGNED_S) == UploadUrl(odd, BOOT_S + life_s, life_s)


@pytest.mark.parametrize(
    ("life_s", "age_s", "upload_s", "expected"),
    [
        (1800, 0, 0, True),
        (1800, 1769, 0, True),
        (1800, 1770, 0, False),
        (8, 0, 0, True),
        (8, 7.1, 0, True),
        (8, 7.2, 0, False),
        (1800, 1700, 60, True),
        (1800, 1700, 80, False),
        (1800, 0, 100_000, True),
        (1800, 869, 100_000, True),
        (1800, 871, 100_000, False),
        (0, 0, 0, False),
    ],
)
def test_the_margin(life_s: float, age_s: float, upload_s: float, *, expected: bool) -> None:
    """No upload begins in the last half minute, or tenth of a short lifetime; a long upload needs more time."""
    assert is_usable(UploadUrl("u", BOOT_S + life_s, life_s), BOOT_S + age_s, upload_s) is expected


@pytest.mark.usefixtures("far_from_utc")
def test_a_urls_date_is_utc() -> None:
    """The time zone of this machine does not matter."""
    assert upload_url_from(url(), 30, SIGNED_S + 60, BOOT_S, 0.0).ends_s == BOOT_S + 1740


def test_no_url_outlives_a_week() -> None:
    """A lifetime beyond the bucket's maximum is cut to that."""
    week_s = 604_800.0
    assert upload_url_from(url("9" * 20), 30, SIGNED_S, BOOT_S, SIGNED_S) == UploadUrl(
        url("9" * 20), BOOT_S + week_s, week_s
    )
    assert upload_url_from("https://h/o", 10**400, SIGNED_S, BOOT_S, SIGNED_S).life_s == week_s


def test_the_representation_shows_no_url() -> None:
    """The `repr`, as in a traceback or log line, does not show the URL."""
    assert "5ECRET" not in repr(upload_url_from(url(), 30, SIGNED_S, BOOT_S, SIGNED_S))
