"""The rules that a simulated laptop follows: the program's own, and the earlier ones that they are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from syncd.core.errors import SyncdError
from syncd.daemon.backoff import FailureBackoff
from syncd.remote.failure import ApiStep, FailureAction
from syncd.remote.retry import RetrySettings, asks_first, backoff_limit_s, delay_s

_EARLIER_LONG_OUTAGE_S, _EARLIER_LONG_WAIT_S = 900.0, 300.0


class AfterFailure(Enum):
    """What the sync after a failed one sends, where nothing was put into the sandbox meanwhile."""

    CHANGES = "what changed"
    EVERYTHING = "a whole archive"


@dataclass(frozen=True)
class Rules:
    """The rules that were changed for the fleet's sake; all others are called where they are."""

    backoff: Callable[[RetrySettings], FailureBackoff]
    delay_s: Callable[[int, float, float, float, float | None], float]
    asks_first: Callable[[ApiStep, FailureAction, int], bool]
    after_failure: AfterFailure


class EarlierBackoff(FailureBackoff):
    """Waits between two syncs without chance; five minutes in a long outage. The repository follows each sync."""

    def follow_at_s(self, now_s: float, chance: float) -> float:
        return now_s

    def outage_wait_s(self, wait_s: float, now_s: float, chance: float) -> float:
        is_long = self._outage_since_s is not None and now_s - self._outage_since_s >= _EARLIER_LONG_OUTAGE_S
        return max(wait_s, _EARLIER_LONG_WAIT_S) if is_long else wait_s

    def after(
        self,
        failure: SyncdError,
        now_s: float,
        took_s: float,
        chance: float,
        asked_s: float = 0.0,
        *,
        awaited: bool = False,
    ) -> None:
        super().after(failure, now_s, took_s, 1.0, asked_s, awaited=awaited)


def _earlier_delay_s(failures: int, first_s: float, max_s: float, chance: float, asked_s: float | None) -> float:
    return max(backoff_limit_s(failures, first_s, max_s) * (0.5 + 0.5 * chance), asked_s or 0.0)


PRESENT = Rules(FailureBackoff, delay_s, asks_first, AfterFailure.CHANGES)
EARLIER = Rules(EarlierBackoff, _earlier_delay_s, lambda step, action, failures: False, AfterFailure.EVERYTHING)
