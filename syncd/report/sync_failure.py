"""A failed sync as people are told of it: the step that failed, and an error with a remedy."""

from __future__ import annotations

from msgspec import Struct

from syncd.core.errors import SyncdError, TryLater, WorkspaceError
from syncd.remote.failure import ApiStep, StepFailed
from syncd.report.logs import place_of


class SyncFailure(Struct, frozen=True):
    """A failure for the status and the history; `retry_after_s` is the wait that a server asked for."""

    step: ApiStep
    error: SyncdError
    retry_after_s: float = 0.0


def sync_failure(failure: Exception) -> SyncFailure:
    """The failure that this exception of a sync means, a defect of this program included."""
    match failure:
        case StepFailed():
            return SyncFailure(failure.step, failure.as_error(), failure.retry_after_s or 0.0)
        case WorkspaceError():
            return SyncFailure(ApiStep.WATCH, failure)
        case SyncdError():
            return SyncFailure(ApiStep.SNAPSHOT, failure)
        case OSError():
            error = TryLater(f"this machine refused something ({failure.strerror or failure})", "see `syncd check`")
            return SyncFailure(ApiStep.SNAPSHOT, error)
        case _:
            error = TryLater(f"internal error ({place_of(failure)})", "please report it")
            return SyncFailure(ApiStep.SNAPSHOT, error)
