"""The meaning of each answer: by status at the API, by status and code at the bucket."""

from __future__ import annotations

import pytest

from syncd.core.errors import KeyRefused, NeedsPerson, SandboxRefused, SyncdError, Unavailable
from syncd.remote.failure import ApiStep, FailureAction, StepFailed


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
