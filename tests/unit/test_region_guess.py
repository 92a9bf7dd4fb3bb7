"""The region offered first, by the name of the time zone."""

from __future__ import annotations

import zoneinfo

import pytest

from syncd.sandbox import region_guess
from syncd.sandbox.region_guess import maybe_european, region_near


@pytest.mark.parametrize(
    ("zone", "region"),
    [
        ("America/New_York", "us"),
        ("US/Pacific", "us"),
        ("Europe/Berlin", "us"),
        ("Africa/Nairobi", "us"),
        ("Asia/Jerusalem", "us"),
        ("Pacific/Honolulu", "us"),
        ("Etc/UTC", "us"),
        ("", "us"),
        ("Asia", "us"),
        ("JST-9", "us"),
        ("Asia/Tokyo", "asia"),
        ("Asia/Kolkata", "asia"),
        ("Australia/Sydney", "asia"),
        ("Pacific/Auckland", "asia"),
        ("Indian/Maldives", "asia"),
        ("Japan", "asia"),
    ],
)
def test_the_region(zone: str, region: str) -> None:
    """East Asia and Oceania are "asia"; all others, and unknown zones, are the default."""
    assert region_near(zone) == region


@pytest.mark.parametrize(
    ("zone", "european"),
    [("Europe/Lisbon", True), ("Atlantic/Canary", True), ("CET", True), ("Atlantic/Bermuda", False), ("", False)],
)
def test_zones_with_an_eu_region(zone: str, european: bool) -> None:
    """Europe and its islands may have an account in the EU."""
    assert maybe_european(zone) is european


def test_the_names_are_names_of_zones() -> None:
    """Each exception names a zone of the database, if this machine has one with the old names."""
    known = zoneinfo.available_timezones()
    if "US/Pacific" not in known:
        pytest.skip("no time zone database here, or one without old names, which Debian has in tzdata-legacy")
    named = {f"{area}/{place}" for area, places in region_guess._ASIAN_AREAS.items() for place in places}
    assert named | region_guess._ASIAN_LINKS | region_guess._EUROPEAN_LINKS <= known
