"""The meaning of each answer: by status at the API, by status and code at the bucket; how a failed sync is shown."""

from __future__ import annotations

import errno
from math import inf

import pytest

from syncd.core.errors import (
    KeyRefused,
    NearlyEmpty,
    NeedsPerson,
    SandboxNotFound,
    SnapshotTooLarge,
    SyncdError,
    TryLater,
    Unavailable,
    failure_with,
)
from syncd.remote.failure import (
    FRESH_URLS,
    LONGEST_RETRY_AFTER_S,
    ApiStep,
    FailureAction,
    NextTry,
    StepFailed,
    asks_first,
    classify_api_status,
    classify_bucket_status,
    delay_s,
    failures_in_row,
    gives_up,
    retry_after_s,
)
from syncd.report.status_publisher import sync_failure

RETRY, REFUSED = FailureAction.RETRY, FailureAction.REFUSED
UPLOAD_AGAIN, RENEW_URL = FailureAction.UPLOAD_AGAIN, FailureAction.RENEW_URL


@pytest.mark.parametrize("status", [302, 399, 407, 408, 409, 421, 423, 425, 429, 500, 503, 599])
def test_what_passes_by_itself(status: int) -> None:
    """A server that is busy, a proxy and a captive portal, at the API and at the bucket."""
    for step in ApiStep:
        assert classify_api_status(step, status) is RETRY
    assert classify_bucket_status(status, "EntityTooLarge") is RETRY


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_what_is_refused(status: int) -> None:
    """By the API it is final, but for an initialize that found no archive; by the bucket the URL is at fault."""
    for step in ApiStep:
        expected = UPLOAD_AGAIN if (step, status) == (ApiStep.INITIALIZE, 400) else REFUSED
        assert classify_api_status(step, status) is expected
    assert classify_bucket_status(status, "ExpiredToken") is (REFUSED if status == 413 else RENEW_URL)
    assert classify_bucket_status(status, "EntityTooLarge") is REFUSED


@pytest.mark.parametrize(
    ("step", "action", "initializes", "expected"),
    [
        (ApiStep.INITIALIZE, RETRY, 1, False),
        (ApiStep.INITIALIZE, RETRY, 2, True),
        (ApiStep.DELETE, REFUSED, 0, False),
        (ApiStep.INITIALIZE, UPLOAD_AGAIN, 2, False),
        (ApiStep.UPLOAD, RETRY, 2, False),
    ],
)
def test_what_the_next_attempt_begins_with(
    step: ApiStep, action: FailureAction, initializes: int, *, expected: bool
) -> None:
    """With one request for an upload URL, where the API failed in a later step."""
    assert asks_first(step, action, initializes) is expected


def test_what_is_known_of_a_failure() -> None:
    """Unless someone knows better, the server may have done what it was asked."""
    failed = StepFailed(ApiStep.UPLOAD, RETRY, "it broke", "wait")
    assert (failed.step, failed.action, failed.args) == (ApiStep.UPLOAD, RETRY, ("it broke",))
    assert (failed.possibly_applied, failed.retry_after_s, failed.gives_up_in_s) == (True, None, None)
    assert [str(failed), str(StepFailed(ApiStep.UPLOAD, RETRY, "it broke"))] == ["it broke: wait", "it broke"]


@pytest.mark.parametrize(
    ("action", "hint", "kind", "text"),
    [
        (REFUSED, "acquire another", SandboxNotFound, "it broke: acquire another"),
        (REFUSED, "", SandboxNotFound, "it broke"),
        (RETRY, "wait", Unavailable, "it broke: wait"),
        (RETRY, "", Unavailable, "it broke: wait a minute, and see `syncd check`"),
    ],
)
def test_the_error_of_a_command(action: FailureAction, hint: str, kind: type[SyncdError], text: str) -> None:
    """What is refused waits for a person; else the command can be tried again."""
    error = StepFailed(ApiStep.UPLOAD, action, "it broke", hint, refusal=SandboxNotFound).as_error()
    assert (type(error), str(error)) == (kind, text)


@pytest.mark.parametrize(
    ("wait_s", "now_s", "expected"), [(0.0, 999.0, False), (0.5, 399.5, False), (0.5, 399.6, True), (9.0, 100.0, False)]
)
def test_when_it_gives_up(wait_s: float, now_s: float, *, expected: bool) -> None:
    """If the wait would end too late; an attempt at once is always made."""
    assert gives_up(wait_s, 100.0, now_s, 300.0) is expected


def test_the_next_try_of_what_keeps_failing() -> None:
    """It comes later each time; a try before its time, or none at all, plans nothing."""
    next_try = NextTry()
    assert not next_try.is_waiting(0.0)
    for now_s, at_s in ((100.0, 115.0), (101.0, 115.0), (115.0, 145.0), (145.0, 205.0), (100_000.0, 100_120.0)):
        next_try.failed(now_s)
        assert next_try.at_s == at_s
    assert next_try.is_waiting(100_119.0)
    assert not next_try.is_waiting(100_120.0)
    next_try.hasten()
    assert next_try.at_s == -inf
    assert not next_try.is_waiting(0.0)
    for number in range(8):
        next_try.failed(number * 1e6)
    assert next_try.at_s == 7e6 + 900.0
    next_try.clear()
    next_try.hasten()  # nothing is planned
    assert next_try == NextTry()


# -- the wait between two attempts


@pytest.mark.parametrize(
    ("failures", "chance", "asked_s", "expected"),
    [
        (1, 0.0, None, 0.5),
        (1, 1.0, None, 1.0),
        (4, 0.5, None, 6.0),
        (99, 1.0, None, 60.0),
        (1, 0.0, 30.0, 30.0),
        (1, 1.0, 30.0, 36.0),
        (1, 1.0, 3_600.0, 3_660.0),
        (99, 1.0, 1.0, 60.0),
    ],
)
def test_the_next_wait(failures: int, chance: float, asked_s: float | None, expected: float) -> None:
    """It doubles up to the most; chance decides half of it; what a server asks for is the least, and a bit."""
    assert delay_s(failures, 1.0, 60.0, chance, asked_s) == expected


# 2026-11-24T12:00:00Z
SERVER_S = 1_795_521_600.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("0000000000000007", 7.0),
        ("86400", LONGEST_RETRY_AFTER_S),
        ("9" * 400, LONGEST_RETRY_AFTER_S),
        ("-5", None),
        ("1.5", None),
        ("\u0663", None),
        ("25, 25", None),
        ("", None),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 12:00:30 -0000", 30.0),
        ("Tue, 24 Nov 2026 13:00:30 +0100", 30.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2099 12:00:00 GMT", LONGEST_RETRY_AFTER_S),
        ("Tue, 24 Nov 2026 12:00:30", 30.0),
        ("Tue, 99 Nov 2026 12:00:30 GMT", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
@pytest.mark.usefixtures("far_from_utc")
def test_retry_after(value: str | None, expected: float | None) -> None:
    """`Retry-After` is seconds or an HTTP date by the server's clock; huge values are bounded, invalid ones ignored."""
    assert retry_after_s(value, SERVER_S) == expected


@pytest.mark.parametrize(
    ("action", "fresh_urls", "expected"),
    [
        (FailureAction.RENEW_URL, 1, 0),
        (FailureAction.RENEW_URL, FRESH_URLS, 0),
        (FailureAction.RENEW_URL, FRESH_URLS + 1, 3),
        (FailureAction.OFFLINE, 0, 3),
    ],
)
def test_a_new_url_is_asked_for_at_once(action: FailureAction, fresh_urls: int, expected: int) -> None:
    """But for one that the bucket refuses again and again."""
    assert failures_in_row(action, fresh_urls, 3) == expected


# -- how a failed sync is shown

GONE = StepFailed(ApiStep.UPLOAD_URL, FailureAction.REFUSED, "no such sandbox", refusal=SandboxNotFound)


@pytest.mark.parametrize(
    ("failure", "step", "kind", "text"),
    [
        (GONE, ApiStep.UPLOAD_URL, SandboxNotFound, "no such sandbox"),
        (
            StepFailed(ApiStep.UPLOAD, FailureAction.RETRY, "it broke", "wait"),
            ApiStep.UPLOAD,
            Unavailable,
            "it broke: wait",
        ),
        (NearlyEmpty("it is empty"), ApiStep.WATCH, NearlyEmpty, "it is empty"),
        (SnapshotTooLarge("it is large"), ApiStep.SNAPSHOT, SnapshotTooLarge, "it is large"),
        (KeyRefused("no key"), ApiStep.SNAPSHOT, KeyRefused, "no key"),
        (
            OSError(errno.EMFILE, "Too many"),
            ApiStep.SNAPSHOT,
            TryLater,
            "this machine refused something (Too many): see `syncd check`",
        ),
        (OSError("odd"), ApiStep.SNAPSHOT, TryLater, "this machine refused something (odd): see `syncd check`"),
        (KeyError("a secret"), ApiStep.SNAPSHOT, TryLater, "internal error (KeyError): please report it"),
    ],
)
def test_each_exception_becomes_an_error(failure: Exception, step: ApiStep, kind: type[SyncdError], text: str) -> None:
    """An exception that nobody foresaw shows no value."""
    failed = sync_failure(failure)
    assert (failed.step, type(failed.error), str(failed.error)) == (step, kind, text)


def test_the_wait_that_a_server_asks_for_is_kept() -> None:
    """Nothing was asked for otherwise."""
    busy = StepFailed(ApiStep.UPLOAD_URL, FailureAction.RETRY, "busy", retry_after_s=7.0)
    assert [sync_failure(busy).retry_after_s, sync_failure(GONE).retry_after_s] == [7.0, 0.0]


@pytest.mark.parametrize(("exit_code", "kind"), [(78, NeedsPerson), (75, TryLater), (1, TryLater)])
def test_the_failure_of_another_process(exit_code: int, kind: type[SyncdError]) -> None:
    """It ends this one as it ended that one."""
    failure = failure_with(exit_code, "it broke: wait")
    assert (type(failure), str(failure)) == (kind, "it broke: wait")
