"""Ends a scenario that takes too long: it would hide those after it."""

from __future__ import annotations

import signal
import traceback
from collections import Counter
from collections.abc import Callable

LIMIT_S = 120.0
_AGAIN_S = 10.0  # what ends a scenario may have been caught by what it ended
Result = tuple[Counter[str], list[str], str]


class TooLong(BaseException):
    """The scenario takes longer than `LIMIT_S`, or the run is ended."""


def begin_process() -> None:
    """Let SIGALRM alone end a scenario of this process; no handler is inherited by what it runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGALRM, _end)


def _end(*_: object) -> None:
    raise TooLong


def limited(run_one: Callable[[tuple[str, int]], Result], asked: tuple[str, int]) -> Result:
    """Run one scenario, which fails if it takes too long."""
    try:
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S, _AGAIN_S)
        try:
            return run_one(asked)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TooLong:
        return Counter(losses=1), [f"seed {asked[1]} was ended:\n{traceback.format_exc()}"], ""
