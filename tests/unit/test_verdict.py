"""What each answer means: by status at the API, by status and code at the bucket."""

from __future__ import annotations

import pytest

from syncd.core.errors import KeyRefused, NeedsPerson, SandboxRefused, SyncdError, Unavailable
from syncd.remote.failure import StepFailed
from syncd.remote.failure_action import Step, Verdict, judge_api, judge_bucket


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [
        (Verdict.RETRY, (407, 408, 409, 421, 423, 425, 429, 500, 502, 503, 504, 599, 301, 302, 307, 308)),
        (Verdict.REFUSED, (401, 403, 404, 405, 410, 413, 422, 451)),
    ],
)
@pytest.mark.parametrize("step", [Step.UPLOAD_URL, Step.INITIALIZE, Step.DELETE])
def test_the_apis_statuses(verdict: Verdict, statuses: tuple[int, ...], step: Step) -> None:
    """What passes is tried again, a sign-in page too; what a person must mend is refused."""
    assert {judge_api(step, status) for status in statuses} == {verdict}


def test_the_apis_400() -> None:
    """For `initialize` it says that no archive lies there; for the rest it is a refusal."""
    assert judge_api(Step.INITIALIZE, 400) is Verdict.UPLOAD_AGAIN
    assert judge_api(Step.UPLOAD_URL, 400) is Verdict.REFUSED


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (400, "ExpiredToken", Verdict.FRESH_LEASE),
        (403, "SignatureDoesNotMatch", Verdict.FRESH_LEASE),
        (403, "", Verdict.FRESH_LEASE),
        (400, "", Verdict.FRESH_LEASE),
        (400, "MalformedSecurityHeader", Verdict.FRESH_LEASE),
        (404, "NoSuchBucket", Verdict.FRESH_LEASE),
        (400, "EntityTooLarge", Verdict.REFUSED),
        (413, "", Verdict.REFUSED),
        (408, "RequestTimeout", Verdict.RETRY),
        (429, "SlowDown", Verdict.RETRY),
        (500, "InternalError", Verdict.RETRY),
        (503, "ServiceUnavailable", Verdict.RETRY),
        (503, "EntityTooLarge", Verdict.RETRY),
        (307, "", Verdict.RETRY),
    ],
)
def test_the_buckets_answers(status: int, code: str, verdict: Verdict) -> None:
    """An expired or refused URL is replaced, what passes is tried again, what is too large never fits."""
    assert judge_bucket(status, code) is verdict


@pytest.mark.parametrize(
    ("verdict", "refusal", "kind", "exit_code"),
    [
        (Verdict.RETRY, SandboxRefused, Unavailable, 75),
        (Verdict.OFFLINE, SandboxRefused, Unavailable, 75),
        (Verdict.FRESH_LEASE, KeyRefused, Unavailable, 75),
        (Verdict.UPLOAD_AGAIN, KeyRefused, Unavailable, 75),
        (Verdict.REFUSED, KeyRefused, KeyRefused, 78),
        (Verdict.REFUSED, SandboxRefused, SandboxRefused, 78),
    ],
)
def test_a_failure_as_a_commands_end(
    verdict: Verdict, refusal: type[NeedsPerson], kind: type[SyncdError], exit_code: int
) -> None:
    """What may work later ends a command with 75, what a person must mend with 78, whatever words it holds."""
    error = StepFailed(Step.UPLOAD, verdict, "no sandbox 'monkey'", "do this", refusal=refusal).as_error()
    assert type(error) is kind
    assert error.exit_code == exit_code
    assert str(error) == "no sandbox 'monkey': do this"
