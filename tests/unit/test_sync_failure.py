"""The step and the error by which a failed sync is shown, for each kind of exception."""

from __future__ import annotations

import errno

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
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.report.status_publisher import sync_failure

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
