"""One step, tried again until it succeeds, is refused, or took too long: tenacity with the program's own rules."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception

from syncd.core.clock import Clock
from syncd.remote.failure import StepFailed
from syncd.remote.failure_action import ApiStep, FailureAction
from syncd.remote.retry import RetrySettings, delay_s

Made = TypeVar("Made")


class RetryObserver(Protocol):
    """Is told of failed attempts, and waits for the next one."""

    def retrying(self, failure: StepFailed, wait_s: float) -> None:
        """An attempt failed and the next one comes after so many seconds."""

    def pause(self, wait_s: float, action: FailureAction) -> None:
        """Wait out a failure. Raises `Stop` or `Superseded`."""


def retried(
    step: Callable[[], Made],
    retry_settings: RetrySettings,
    clock: Clock,
    *,
    on_retry: Callable[[StepFailed, float], None],
    pause: Callable[[float, FailureAction], None],
    failed_before: int = 0,
) -> Made:
    """What the step gives in the end. Raises `StepFailed`, and what else the step and `pause` raise.

    `failed_before` counts the failures in a row of earlier calls: changes that end a wait must not shorten the next.
    """
    started_s = clock.monotonic_s()

    def spent(state: RetryCallState) -> bool:
        return clock.monotonic_s() - started_s + state.upcoming_sleep > retry_settings.give_up_s

    def wait_s(state: RetryCallState) -> float:
        chance = random.random()  # noqa: S311 - jitter, not a secret
        return delay_s(
            failed_before + state.attempt_number,
            retry_settings.first_s,
            retry_settings.max_s,
            chance,
            failure.retry_after_s,
        )

    failure = StepFailed(ApiStep.UPLOAD_URL, FailureAction.RETRY, "not tried yet")

    def once() -> Made:
        nonlocal failure
        try:
            return step()
        except StepFailed as failed:
            failure = failed
            raise

    retrying = Retrying(
        retry=retry_if_exception(_passes),
        wait=wait_s,
        stop=spent,
        before_sleep=lambda state: on_retry(failure, state.upcoming_sleep),
        sleep=lambda seconds: pause(seconds, failure.action),
        reraise=True,
    )
    made: Made = retrying(once)
    return made


def _passes(failure: BaseException) -> bool:
    return isinstance(failure, StepFailed) and failure.action is not FailureAction.REFUSED
