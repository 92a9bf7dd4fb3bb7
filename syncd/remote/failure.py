"""Failed steps: what happened, what the program does about it, and what a person can do.

The bucket is judged by status and `<Code>`, never by its message (Google Cloud Storage, "XML API: HTTP status and error
codes"); the API by its status.
"""

from __future__ import annotations

from enum import Enum, StrEnum

from syncd.core.errors import NeedsPerson, SandboxRefused, SyncdError, Unavailable

SIGN_IN = "sign in to this network if it asks for that"


class ApiStep(StrEnum):
    """The step that failed; the words are those of `status --json`."""

    WATCH = "watch"
    SNAPSHOT = "snapshot"
    UPLOAD_URL = "upload-url"
    UPLOAD = "upload"
    INITIALIZE = "initialize"
    DELETE = "delete"
    EXECUTION = "execution"  # part of a check or a removal: `remote_job.Purpose` names the step that it belongs to
    DUMP = "dump"  # only `syncd pull` and `verify` ask for it
    SANDBOX = "sandbox"  # only `syncd check` and `syncd sandbox` ask for it; no status names it


class FailureAction(Enum):
    """The program's reaction to a failure."""

    RETRY = "the same step again, after a wait"
    OFFLINE = "no answer at all: the same step again, after a wait that a newer change may cut short"
    RENEW_URL = "a new signed URL, at once"
    UPLOAD_AGAIN = "what lies in the bucket is not what was sent"
    REFUSED = "a person must change something"


class StepFailed(Exception):
    """One attempt at one step failed.

    `retry_after_s` is the wait that the server asked for; `refusal` is the error that a refused attempt ends a command
    with; `possibly_applied` is False if the server surely did not do what it was asked.
    """

    def __init__(
        self,
        step: ApiStep,
        action: FailureAction,
        message: str,
        hint: str = "",
        *,
        retry_after_s: float | None = None,
        refusal: type[NeedsPerson] = SandboxRefused,
        possibly_applied: bool = True,
    ) -> None:
        super().__init__(message)
        self.step = step
        self.action = action
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s
        self.refusal = refusal
        self.possibly_applied = possibly_applied

    def as_error(self) -> SyncdError:
        """Return the error that ends a command."""
        kind = self.refusal if self.action is FailureAction.REFUSED else Unavailable
        return kind(self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


# "Retry 408, 429, 5xx": Google's retry strategy; 409 and 425 are the API's "not now"; 407 is a proxy's, 421 is about
# the connection.
RETRYABLE = frozenset({407, 408, 409, 421, 423, 425, 429})
# No new URL and no wait changes these.
HOPELESS_CODES = frozenset({"EntityTooLarge"})


def classify_api_status(step: ApiStep, status: int) -> FailureAction:
    """Return what to do about an API answer with this error status."""
    if status >= 500 or status in RETRYABLE:
        return FailureAction.RETRY
    if status < 400:
        return FailureAction.RETRY  # a captive portal redirects until someone has signed in; nothing else was asked for
    if step is ApiStep.INITIALIZE and status == 400:
        return FailureAction.UPLOAD_AGAIN  # "no uploaded archive": the slot was emptied, or never filled
    return FailureAction.REFUSED


def classify_bucket_status(status: int, code: str) -> FailureAction:
    """Return what to do about a bucket's answer with this status and XML `<Code>`."""
    if status >= 500 or status in RETRYABLE or status < 400:
        return FailureAction.RETRY
    if code in HOPELESS_CODES or status == 413:
        return FailureAction.REFUSED
    # The signed URL is no longer accepted: `ExpiredToken`, or 403 where its signature no longer verifies after a change
    # of keys. Other causes (a malformed header, no such bucket) also lie in the URL, if in anything of ours.
    return FailureAction.RENEW_URL
