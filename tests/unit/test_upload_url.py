"""The expiry of a signed URL, by its own times and the server's clock, and the last moment to begin an upload."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.remote.target import Target
from syncd.remote.upload_url import UploadUrl, UploadUrlStore, is_expired, is_usable, upload_url_from
from syncd.store.state_db import StateDb
from tests.clock import ScriptedClock
from tests.recorded import full_disk, records

# 2026-11-24T12:00:00Z, as the URLs below were signed.
SIGNED_S = 1_795_521_600.0
BOOT_S = 500.0


def url(life_s: object = 1800, date: str = "20261124T120000Z", names: tuple[str, str] = ("Date", "Expires")) -> str:
    return f"https://h/o?X-Goog-{names[0]}={date}&X-Goog-{names[1]}={life_s}&X-Goog-Signature=5ECRET"


@pytest.mark.parametrize(
    ("server_wall_s", "wall_s", "ends_in_s"),
    [
        (SIGNED_S, SIGNED_S, 1800),  # no skew
        (SIGNED_S + 0.5, SIGNED_S, 1799.5),  # signed just now
        (SIGNED_S, SIGNED_S - 86_400, 1800),  # ours behind
        (None, SIGNED_S + 100, 1700),  # no Date
        (None, SIGNED_S - 100, 1800),  # no Date, behind
        (SIGNED_S - 9e9, SIGNED_S, 1800),  # mad Date
        (SIGNED_S + 1700, SIGNED_S, 100),  # nearly over
        (SIGNED_S + 1800, SIGNED_S, 1800),  # over
        (None, SIGNED_S + 7200, 1800),  # no Date, hours ahead
    ],
)
@pytest.mark.usefixtures("far_from_utc")
def test_expiry_is_in_the_servers_time(server_wall_s: float | None, wall_s: float, ends_in_s: float) -> None:
    """The answer's Date corrects for this machine's clock, whichever way it is off; without one this clock is used."""
    upload_url = upload_url_from(url(), 5, server_wall_s, BOOT_S, wall_s)
    assert (upload_url.ends_s - BOOT_S, upload_url.life_s) == (ends_in_s, 1800)


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "http://[bad/o?X-Goog-Date=20261124T120000Z&X-Goog-Expires=1",
        url(""),
        url(0),
        url("9" * 5000),
        url(date="99999999T120000Z"),
        url().replace("X-Goog-Date", "X-Goog-Day"),
    ],
)
@pytest.mark.parametrize(("minutes", "life_s"), [(30, 1800.0), (0, 0.0), (-1, 0.0)])
def test_without_readable_times_the_minutes_count(odd: str, minutes: int, life_s: float) -> None:
    """A URL without valid times lives as long as the answer says, from the answer on."""
    assert upload_url_from(odd, minutes, SIGNED_S, BOOT_S, SIGNED_S) == UploadUrl(odd, BOOT_S + life_s, life_s)


@pytest.mark.parametrize(
    ("life_s", "age_s", "expected"),
    [
        (1800, 1769.5, True),
        (1800, 1770, False),
        (8, 7.1, True),
        (8, 7.2, False),
        (0, 0, False),
    ],
)
def test_the_margin(life_s: float, age_s: float, *, expected: bool) -> None:
    """No upload begins in the last half minute, or tenth of a short lifetime."""
    assert is_usable(UploadUrl("u", BOOT_S + life_s, life_s), BOOT_S + age_s) is expected
    assert upload_url_from(url(1), 30, SIGNED_S, BOOT_S, SIGNED_S).life_s == 1


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


@pytest.mark.parametrize(("later_s", "expected"), [(-0.1, False), (0.0, True), (0.1, True)])
def test_an_expired_url(later_s: float, *, expected: bool) -> None:
    """From its end on."""
    assert is_expired(UploadUrl("u", BOOT_S + 1800, 1800), BOOT_S + 1800 + later_s) is expected


def store(folder: Path, clock: ScriptedClock, region: str = "us", sandbox: str = "box") -> UploadUrlStore:
    """Return the store of another process, after a restart of the machine too."""
    return UploadUrlStore(StateDb(str(folder)), Target("https://api.example", sandbox, region), clock)


@pytest.mark.parametrize("slept_s", [0.0, 1799.0])
def test_a_kept_url(tmp_path: Path, slept_s: float) -> None:
    """The next process has what is left of it, by its own clock since the boot."""
    clock = ScriptedClock()
    store(tmp_path, clock).save(UploadUrl("u", clock.boottime_s() + 1800, 1800))
    assert records(tmp_path) == {"upload_url"}
    clock.suspend(slept_s)
    clock.boottime = 7.0
    assert store(tmp_path, clock).load() == UploadUrl("u", 7.0 + 1800 - slept_s, 1800)
    for another in (store(tmp_path, clock, "asia"), store(tmp_path, clock, sandbox="box-blue")):
        assert another.load() is None
    store(tmp_path, clock).forget()
    assert store(tmp_path, clock).load() is None


@pytest.mark.parametrize("set_by_s", [1800.0, 3600.0, -2.0])
def test_a_kept_url_that_cannot_be_valid(tmp_path: Path, set_by_s: float) -> None:
    """It has expired, or the clock was set back."""
    clock = ScriptedClock()
    store(tmp_path, clock).save(UploadUrl("u", clock.boottime_s() + 1800, 1801))
    clock.wall += set_by_s
    assert store(tmp_path, clock).load() is None


def test_a_url_that_cannot_be_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk, one request more tells the next process."""
    clock = ScriptedClock()
    store(tmp_path, clock).save(UploadUrl("u", clock.boottime_s() + 1800, 1801))
    monkeypatch.setattr(StateDb, "change", full_disk)
    store(tmp_path, clock).forget()
    assert store(tmp_path, clock).load() is not None
