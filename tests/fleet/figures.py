"""The figures of a simulated fleet: rates, waves, waits, and what was wasted. All of it is arithmetic on counts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

# Rates are means over so many seconds.
WINDOW_S = 10


def peak(counts: Sequence[int], first_s: float, end_s: float) -> float:
    """Return the highest of the rates, wherever its window begins."""
    first, end = int(first_s), min(int(end_s), len(counts))
    sums = [0, *accumulate(counts[first:end])]
    return max((sums[at + WINDOW_S] - sums[at] for at in range(len(sums) - WINDOW_S)), default=0) / WINDOW_S


def mean(counts: Sequence[int], first_s: float, end_s: float) -> float:
    """Return the mean rate."""
    first, end = int(first_s), min(int(end_s), len(counts))
    return sum(counts[first:end]) / max(1, end - first)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share lies; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
