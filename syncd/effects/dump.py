"""The sandbox's workspace, downloaded as the archive that the API makes of it (`/dump`), and read as it comes.

A download that breaks off starts anew with a fresh archive, since the sandbox may have changed meanwhile.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception

from syncd.base.clock import Clock
from syncd.base.interrupt import Interrupt
from syncd.effects.api import Api
from syncd.effects.bucket import check_url
from syncd.effects.delivery import Patience
from syncd.effects.failure import StepFailed
from syncd.effects.http import Answer, Exchanger, NoAnswer
from syncd.effects.tar_reader import BadArchive
from syncd.policy.retry import delay_s, retry_after_s
from syncd.policy.verdict import Step, Verdict

# A read of the download that brings nothing for so long has failed.
_READ_S = 60.0

Made = TypeVar("Made")


class Dump:
    """One sandbox's workspace, to be taken over or compared."""

    def __init__(self, api: Api, exchanger: Exchanger, patience: Patience, clock: Clock, interrupt: Interrupt) -> None:
        self._api = api
        self._exchanger = exchanger
        self._patience = patience
        self._clock = clock
        self._interrupt = interrupt

    def read(self, make: Callable[[Iterator[bytes]], Made], on_retry: Callable[[StepFailed, float], None]) -> Made:
        """What `make` makes of the archive's bytes; it is called anew for each attempt.

        Raises `StepFailed` when retries end, `Stop`, and what else `make` raises.
        """
        started_s = self._clock.monotonic_s()

        def spent(state: RetryCallState) -> bool:
            return self._clock.monotonic_s() - started_s + state.upcoming_sleep > self._patience.give_up_s

        retrying = Retrying(
            retry=retry_if_exception(_passes),
            wait=self._wait_s,
            stop=spent,
            before_sleep=lambda state: on_retry(_failure(state), state.upcoming_sleep),
            sleep=self._pause,
            reraise=True,
        )
        made: Made = retrying(self._once, make)
        return made

    def _once(self, make: Callable[[Iterator[bytes]], Made]) -> Made:
        url = self._api.dump()
        check_url(Step.DUMP, url)
        try:
            made = self._exchanger.download(url, read_s=_READ_S, take=make)
        except NoAnswer as failure:
            raise StepFailed(Step.DUMP, Verdict.OFFLINE, f"the download was cut off ({failure})") from None
        except BadArchive as failure:
            raise StepFailed(Step.DUMP, Verdict.RETRY, f"the sandbox's archive cannot be read: {failure}") from None
        if isinstance(made, Answer):
            asked_s = retry_after_s(made.headers.get("Retry-After"), made.server_wall_s or self._clock.wall_s())
            message = f"the bucket answered the download with {made.status}"
            raise StepFailed(Step.DUMP, Verdict.RETRY, message, retry_after_s=asked_s)
        return made

    def _wait_s(self, state: RetryCallState) -> float:
        chance = random.random()  # noqa: S311 - jitter, not a secret
        asked_s = _failure(state).retry_after_s
        return delay_s(state.attempt_number, self._patience.first_s, self._patience.max_s, chance, asked_s)

    def _pause(self, wait_s: float) -> None:
        with self._interrupt.region():
            self._clock.sleep(wait_s)


def _failure(state: RetryCallState) -> StepFailed:
    failure = state.outcome.exception() if state.outcome else None
    assert isinstance(failure, StepFailed)  # noqa: S101 - `_passes` lets nothing else through
    return failure


def _passes(failure: BaseException) -> bool:
    return isinstance(failure, StepFailed) and failure.verdict is not Verdict.REFUSED
