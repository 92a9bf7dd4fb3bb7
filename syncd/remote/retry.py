"""Retries one step until it succeeds, is refused, or took too long: tenacity, with this program's wait and stop policy.

Tenacity's own policies know neither `Retry-After` nor failures in a row that outlive one call, and its stop reads the
machine's clock, which a test cannot turn. `retry_if_exception` lets all but a `StepFailed` through, a stop too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception

from syncd.core.clock import Clock
from syncd.remote.failure import FailureAction, RetrySettings, StepFailed, delay_s, gives_up

Result = TypeVar("Result")


# Waits so many seconds for the next attempt, after one that failed so.
WaitOut = Callable[[StepFailed, float], None]


def with_retries(
    step: Callable[[], Result],
    retry_settings: RetrySettings,
    clock: Clock,
    wait_out: WaitOut,
    failures_in_row: Callable[[StepFailed], int] | None = None,
) -> Result:
    """Return the result of `step`, calling it again after each `StepFailed` that is not a refusal.

    `failures_in_row` counts the failures that the wait grows with, 0 for another attempt at once; it serves callers
    whose count outlives one call, since changes that end a wait must not shorten the next. By default each attempt of
    this call counts. An attempt at once is always made, so the caller bounds their number. Raises the last `StepFailed`
    when no attempt may follow, and what else `step` and `wait_out` raise.
    """
    started_s = clock.monotonic_s()

    def wait_s(state: RetryCallState) -> float:
        failure = _failure(state)
        failure.gives_up_in_s = max(0.0, started_s + retry_settings.give_up_s - clock.monotonic_s())
        failures = failures_in_row(failure) if failures_in_row else state.attempt_number
        chance = random.random()  # noqa: S311 - jitter, not a secret
        first_s, max_s = retry_settings.first_s, retry_settings.max_s
        return delay_s(failures, first_s, max_s, chance, failure.retry_after_s) if failures else 0.0

    return Retrying(
        retry=retry_if_exception(_is_retryable),
        wait=wait_s,
        stop=lambda state: gives_up(state.upcoming_sleep, started_s, clock.monotonic_s(), retry_settings.give_up_s),
        before_sleep=lambda state: wait_out(_failure(state), state.upcoming_sleep),
        sleep=lambda _: None,
        reraise=True,
    )(step)


def _failure(state: RetryCallState) -> StepFailed:
    failure = state.outcome and state.outcome.exception()
    assert isinstance(failure, StepFailed)  # noqa: S101 - nothing else is retried
    return failure


def _is_retryable(failure: BaseException) -> bool:
    return isinstance(failure, StepFailed) and failure.action is not FailureAction.REFUSED
