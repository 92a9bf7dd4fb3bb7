"""The failure action for each response: by status at the API, by status and code at the bucket."""

from __future__ import annotations

import pytest

from syncd.core.errors import KeyRefused, NeedsPerson, SandboxRefused, SyncdError, Unavailable
from syncd.remote.failure import StepFailed
from syncd.remote.failure_action import ApiStep, FailureAction, classify_api_status, classify_bucket_status


@pytest.mark.parametrize(
    ("action", "statuses"),
    [
        (FailureAction.RETRY, (407, 408, 409, 421, 423, 425, 429, 500, 502, 503, 504, 599, 301, 302, 307, 308)),
        (FailureAction.REFUSED, (401, 403, 404, 405, 410, 413, 422, 451)),
    ],
)
@pytest.mark.parametrize("step", [ApiStep.UPLOAD_URL, ApiStep.INITIALIZE, ApiStep.DELETE])
def test_the_apis_statuses(action: FailureAction, statuses: tuple[int, ...], step: ApiStep) -> None:
    """Statuses that pass by themselves, and sign-in pages, are retried; others are refused."""
    assert {classify_api_status(step, status) for status in statuses} == {action}


def test_the_apis_400() -> None:
    """It means a missing archive for `initialize`, and a refusal for other requests."""
    assert classify_api_status(ApiStep.INITIALIZE, 400) is FailureAction.UPLOAD_AGAIN
    assert classify_api_status(ApiStep.UPLOAD_URL, 400) is FailureAction.REFUSED


@pytest.mark.parametrize(
    ("status", "code", "action"),
    [
        (400, "ExpiredToken", FailureAction.FRESH_LEASE),
        (403, "SignatureDoesNotMatch", FailureAction.FRESH_LEASE),
        (403, "", FailureAction.FRESH_LEASE),
        (400, "", FailureAction.FRESH_LEASE),
        (400, "MalformedSecurityHeader", FailureAction.FRESH_LEASE),
        (404, "NoSuchBucket", FailureAction.FRESH_LEASE),
        (400, "EntityTooLarge", FailureAction.REFUSED),
        (413, "", FailureAction.REFUSED),
        (408, "RequestTimeout", FailureAction.RETRY),
        (429, "SlowDown", FailureAction.RETRY),
        (500, "InternalError", FailureAction.RETRY),
        (503, "ServiceUnavailable", FailureAction.RETRY),
        (503, "EntityTooLarge", FailureAction.RETRY),
        (307, "", FailureAction.RETRY),
    ],
)
def test_the_buckets_answers(status: int, code: str, action: FailureAction) -> None:
    """An expired or refused URL is replaced, what passes by itself is retried, a too large archive is refused."""
    assert classify_bucket_status(status, code) is action


@pytest.mark.parametrize(
    ("action", "refusal", "kind", "exit_code"),
    [
        (FailureAction.RETRY, SandboxRefused, Unavailable, 75),
        (FailureAction.OFFLINE, SandboxRefused, Unavailable, 75),
        (FailureAction.FRESH_LEASE, KeyRefused, Unavailable, 75),
        (FailureAction.UPLOAD_AGAIN, KeyRefused, Unavailable, 75),
        (FailureAction.REFUSED, KeyRefused, KeyRefused, 78),
        (FailureAction.REFUSED, SandboxRefused, SandboxRefused, 78),
    ],
)
def test_exit_codes(action: FailureAction, refusal: type[NeedsPerson], kind: type[SyncdError], exit_code: int) -> None:
    """A command ends with 75 for what may work later and with 78 for what a person must fix, whatever the message."""
    error = StepFailed(ApiStep.UPLOAD, action, "no sandbox 'monkey'", "do this", refusal=refusal).as_error()
    assert type(error) is kind
    assert error.exit_code == exit_code
    assert str(error) == "no sandbox 'monkey': do this"
