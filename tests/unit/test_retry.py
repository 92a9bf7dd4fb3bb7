"""The wait between two attempts: doubling, jitter, and `Retry-After`."""

from __future__ import annotations

import pytest

from syncd.remote.failure import (
    FRESH_URLS,
    LONGEST_RETRY_AFTER_S,
    FailureAction,
    backoff_limit_s,
    delay_s,
    failures_in_row,
    gives_up,
    retry_after_s,
)

# 2026-11-24T12:00:00Z
SERVER_S = 1_795_521_600.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("007", 7.0),
        ("0000000000000007", 7.0),
        ("3600", 3600.0),
        ("86400", LONGEST_RETRY_AFTER_S),
        ("9" * 400, LONGEST_RETRY_AFTER_S),
        ("-5", None),
        ("1.5", None),
        ("\u0663", None),
        ("soon", None),
        ("", None),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 12:00:30 -0000", 30.0),
        ("Tue, 24 Nov 2026 13:00:30 +0100", 30.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2099 12:00:00 GMT", LONGEST_RETRY_AFTER_S),
        ("Tuesday, 24-Nov-26 12:00:30 GMT", 30.0),
        ("Tue, 99 Nov 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after(value: str | None, expected: float | None) -> None:
    """`Retry-After` is seconds or an HTTP date by the server's clock; huge values are bounded, invalid ones ignored."""
    assert retry_after_s(value, SERVER_S) == expected


@pytest.mark.usefixtures("far_from_utc")
def test_a_date_without_a_zone_is_utc() -> None:
    """The time zone of this machine does not matter."""
    assert retry_after_s("Tue, 24 Nov 2026 12:00:30 -0000", SERVER_S) == 30.0


@pytest.mark.parametrize(
    ("failures", "expected"),
    [(0, 1.0), (1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (1_000_000, 60.0)],
)
def test_the_limit_doubles(failures: int, expected: float) -> None:
    """The wait doubles with each failure in a row, up to the longest."""
    assert backoff_limit_s(failures, 1.0, 60.0) == expected


@pytest.mark.parametrize("failures", [1, 2, 5, 10, 100])
@pytest.mark.parametrize("chance", [0.0, 0.25, 1.0])
def test_the_jitter_stays_in_bounds(failures: int, chance: float) -> None:
    """The wait is between half of the limit and all of it, so that many laptops do not return at once."""
    limit_s = backoff_limit_s(failures, 0.5, 30.0)
    assert limit_s / 2 <= delay_s(failures, 0.5, 30.0, chance) <= limit_s
    assert delay_s(failures, 0.5, 30.0, 0.0) < delay_s(failures, 0.5, 30.0, 1.0)


@pytest.mark.parametrize(("asked_s", "expected"), [(None, 2.0), (0.0, 2.0), (1.0, 2.0), (90.0, 90.0)])
def test_retry_after_is_a_minimum(asked_s: float | None, expected: float) -> None:
    """`Retry-After` lengthens the wait, beyond the configured maximum too, and never shortens it."""
    assert delay_s(3, 1.0, 60.0, 0.0, asked_s) == expected


def test_those_who_were_told_the_same_return_one_after_the_other() -> None:
    """The wait goes beyond `Retry-After` by up to a fifth or a minute, at random."""
    waits = [delay_s(1, 1.0, 60.0, chance / 10, 100.0) for chance in range(11)]
    assert waits == pytest.approx([100 + 2 * chance for chance in range(11)])
    assert delay_s(1, 1.0, 60.0, 1.0, 3600.0) == 3660.0


@pytest.mark.parametrize(
    ("action", "fresh_urls", "expected"),
    [
        (FailureAction.RENEW_URL, 1, 0),
        (FailureAction.RENEW_URL, FRESH_URLS, 0),
        (FailureAction.RENEW_URL, FRESH_URLS + 1, 3),
        (FailureAction.RETRY, 1, 3),
        (FailureAction.OFFLINE, 0, 3),
    ],
)
def test_a_new_url_is_asked_for_at_once(action: FailureAction, fresh_urls: int, expected: int) -> None:
    """But for one that the bucket refuses again and again."""
    assert failures_in_row(action, fresh_urls, 3) == expected


@pytest.mark.parametrize(
    ("wait_s", "now_s", "expected"), [(10.0, 390.0, False), (10.1, 390.0, True), (0.0, 900.0, False)]
)
def test_the_end_of_retries(wait_s: float, now_s: float, *, expected: bool) -> None:
    """They end before a wait that goes beyond the limit; an attempt at once is always made."""
    assert gives_up(wait_s, 100.0, now_s, 300.0) is expected


def test_a_first_delay_over_the_longest() -> None:
    """The maximum bounds the first wait as well."""
    assert backoff_limit_s(1, 100.0, 60.0) == 60.0
