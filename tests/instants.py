"""Chooses the instants at which a test kills, cuts or fails: a few of all that there are, or all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

Choice = Callable[[int], list[int]]


def few(count: int, most: int = 8) -> list[int]:
    """Return `most` of the numbers from 1 to `count`, evenly spread, the first and the last among them."""
    return sorted({1 + place * (count - 1) // (most - 1) for place in range(most)})


def all_of(count: int) -> list[int]:
    """Return the numbers from 1 on, some more than `count`: a run may take a step more than the one before."""
    return list(range(1, count + 9))


# Each run of the tests takes a few, and `-m long` all of them, for which a busy machine needs minutes.
_ALL = pytest.param(all_of, marks=[pytest.mark.long, pytest.mark.timeout(900)])
FEW_OR_ALL = pytest.mark.parametrize("choice", [few, _ALL])


def some_of(cases: Iterable[object], every: int) -> list[Any]:
    """Return the cases as parameters: each run of the tests takes one of so many, and `-m long` the others."""
    return [pytest.param(case, marks=pytest.mark.long if at % every else ()) for at, case in enumerate(cases)]
