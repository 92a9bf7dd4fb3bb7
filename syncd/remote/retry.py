"""Retries one step until it succeeds, is refused, or took too long: tenacity, with this program's wait and stop policy.

Tenacity's own policies know neither `Retry-After` nor failures in a row that outlive one call, and its stop reads the
machine's clock, which a test cannot turn. `retry_if_exception` lets all but a `StepFailed` through, a stop too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from syncd.core.clock import Clock
from syncd.remote.failure import FailureAction, RetrySettings, StepFailed, delay_s, gives_up

Result = TypeVar("Result")


class RetryObserver(Protocol):
    """Is notified of failed attempts, and waits for the next one."""

    def retrying(self, failure: StepFailed, wait_s: float) -> None:
        """An attempt failed and the next one comes after so many seconds."""

    def pause(self, wait_s: float) -> None:
        """Wait before the next attempt, after `retrying`. Raises `Stop` or `Superseded`."""


def with_retries(
    step: Callable[[], Result],
    retry_settings: RetrySettings,
    clock: Clock,
    *,
    on_retry: Callable[[StepFailed, float], None],
    pause: Callable[[float], None],
    failures_in_row: Callable[[StepFailed], int] | None = None,
) -> Result:
    """Return the result of `step`, calling it again after each `StepFailed` that is not a refusal.

    `failures_in_row` counts the failures that the wait grows with, 0 for another attempt at once; it serves callers
    whose count outlives one call, since changes that end a wait must not shorten the next. By default each attempt of
    this call counts. An attempt at once is always made, so the caller bounds their number. Raises the last `StepFailed`
    when no attempt may follow, and what else `step` and `pause` raise.
    """
    retrying = Retrying(
        retry=retry_if_exception(_is_retryable),
        wait=_Wait(retry_settings, failures_in_row),
        stop=_StopByClock(retry_settings, clock),
        before_sleep=lambda state: on_retry(_failure(state), state.upcoming_sleep),
        sleep=pause,
        reraise=True,
    )
    return retrying(step)


class _Wait(wait_base):
    """The wait that the failures in a row and the server ask for."""

    def __init__(self, retry_settings: RetrySettings, failures_in_row: Callable[[StepFailed], int] | None) -> None:
        self._settings = retry_settings
        self._failures_in_row = failures_in_row

    def __call__(self, retry_state: RetryCallState) -> float:
        failure = _failure(retry_state)
        failures = self._failures_in_row(failure) if self._failures_in_row else retry_state.attempt_number
        if failures == 0:
            return 0.0
        chance = random.random()  # noqa: S311 - jitter, not a secret
        return delay_s(failures, self._settings.first_s, self._settings.max_s, chance, failure.retry_after_s)


class _StopByClock(stop_base):
    """Stops before a wait that would last beyond the limit, from now on."""

    def __init__(self, retry_settings: RetrySettings, clock: Clock) -> None:
        self._give_up_s = retry_settings.give_up_s
        self._clock = clock
        self._started_s = clock.monotonic_s()

    def __call__(self, retry_state: RetryCallState) -> bool:
        return gives_up(retry_state.upcoming_sleep, self._started_s, self._clock.monotonic_s(), self._give_up_s)


def _failure(state: RetryCallState) -> StepFailed:
    failure = state.outcome and state.outcome.exception()
    assert isinstance(failure, StepFailed)  # noqa: S101 - nothing else is retried
    return failure


def _is_retryable(failure: BaseException) -> bool:
    return isinstance(failure, StepFailed) and failure.action is not FailureAction.REFUSED
