"""What a step of a sync raises when it fails: what happened, what the program may do, what a person can do."""

from __future__ import annotations

from syncd.core.errors import NeedsPerson, SandboxRefused, SyncdError, Unavailable
from syncd.remote.failure_action import ApiStep, FailureAction

SIGN_IN = "is this network asking for a sign-in?"


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
        """The failure as a command ends with it."""
        kind = self.refusal if self.action is FailureAction.REFUSED else Unavailable
        return kind(self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message
