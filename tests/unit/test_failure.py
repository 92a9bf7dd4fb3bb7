"""The meaning of each answer: by status at the API, by status and code at the bucket."""

from __future__ import annotations

import pytest

from syncd.core.errors import KeyRefused, NeedsPerson, SandboxRefused, SyncdError, Unavailable
from syncd.remote.failure import ApiStep, FailureAction, StepFailed, classify_api_status, classify_bucket_status


@pytest.mark.parametrize(
    ("action", "statuses"),
    [
        (FailureAction.RETRY, (407, 408, 409, 421, 423, 425, 429, 500, 502, 503, 504, 599, 301, 302, 307, 308)),
        (FailureAction.REFUSED, (401, 403, 404, 405, 410, 413, 422, 451)),
    ],
)
@pytest.mark.parametrize("step", [ApiStep.UPLOAD_URL, ApiStep.INITIALIZE, ApiStep.DELETE])
def test_the_apis_statuses(action: FailureAction, statuses: tuple[int, ...], step: ApiStep) -> None:
    """Temporary failures are retried, a sign-in page too; those that need a person are refusals."""
    assert {classify_api_status(step, status) for status in statuses} == {action}


def test_the_apis_400() -> None:
    """For `initialize` a 400 means that there is no archive; for other steps it is a refusal."""
    assert classify_api_status(ApiStep.INITIALIZE, 400) is FailureAction.UPLOAD_AGAIN
    assert classify_api_status(ApiStep.UPLOAD_URL, 400) is FailureAction.REFUSED


@pytest.mark.parametrize(
    ("status", "code", "action"),
    [
        (400, "ExpiredToken", FailureAction.RENEW_URL),
        (403, "SignatureDoesNotMatch", FailureAction.RENEW_URL),
        (403, "", FailureAction.RENEW_URL),
        (400, "", FailureAction.RENEW_URL),
        (400, "MalformedSecurityHeader", FailureAction.RENEW_URL),
        (404, "NoSuchBucket", FailureAction.RENEW_URL),
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
    """An expired or refused URL is renewed, a temporary failure is retried, a too large archive is refused."""
    assert classify_bucket_status(status, code) is action


@pytest.mark.parametrize(
    ("action", "refusal", "kind", "exit_code"),
    [
        (FailureAction.RETRY, SandboxRefused, Unavailable, 75),
        (FailureAction.OFFLINE, SandboxRefused, Unavailable, 75),
        (FailureAction.RENEW_URL, KeyRefused, Unavailable, 75),
        (FailureAction.UPLOAD_AGAIN, KeyRefused, Unavailable, 75),
        (FailureAction.REFUSED, KeyRefused, KeyRefused, 78),
        (FailureAction.REFUSED, SandboxRefused, SandboxRefused, 78),
    ],
)
def test_a_failure_as_a_commands_end(
    action: FailureAction, refusal: type[NeedsPerson], kind: type[SyncdError], exit_code: int
) -> None:
    """A failure that may pass ends a command with 75, one that needs a person with 78, whatever its text."""
    error = StepFailed(ApiStep.UPLOAD, action, "no sandbox 'monkey'", "do this", refusal=refusal).as_error()
    assert type(error) is kind
    assert error.exit_code == exit_code
    assert str(error) == "no sandbox 'monkey': do this"
