"""The wait between two attempts: doubling, jitter, and `Retry-After`."""

from __future__ import annotations

import pytest

from syncd.remote.failure import (
    FRESH_URLS,
    LONGEST_RETRY_AFTER_S,
    FailureAction,
    failures_in_row,
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
        ("+9", None),
        ("25, 25", None),
        ("inf", None),
        ("0x10", None),
        ("soon", None),
        ("", None),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 12:00:30 -0000", 30.0),
        ("Tue, 24 Nov 2026 13:00:30 +0100", 30.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2099 12:00:00 GMT", LONGEST_RETRY_AFTER_S),
        ("Tuesday, 24-Nov-26 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 12:00:30", 30.0),
        ("Tue, 99 Nov 2026 12:00:30 GMT", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Mon, 00 Foo 0000 99:99:99 GMT", None),
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
