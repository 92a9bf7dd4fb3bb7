"""The figures of a simulated fleet: rates, waves, waits, and what was wasted. All of it is arithmetic on counts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

# Rates are means over so many seconds.
WINDOW_S = 10
# A wave comes again after so many seconds at least; shorter ones are one sync's own requests.
LEAST_LAG_S, MOST_LAG_S = 20, 320
# Slower changes than this are the day's.
_TREND_S = 300


def rates(counts: Sequence[int], first_s: float, end_s: float) -> list[float]:
    """Return the requests a second, by windows, from `first_s` until `end_s`."""
    first, end = int(first_s), min(int(end_s), len(counts))
    return [sum(counts[at : at + WINDOW_S]) / WINDOW_S for at in range(first, end - WINDOW_S + 1, WINDOW_S)]


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


def without_trend(values: Sequence[float]) -> list[float]:
    """Return what differs from the mean of the minutes around it."""
    sums = [0.0, *accumulate(values)]
    half, last = _TREND_S // 2, len(values)
    spans = ((max(0, at - half), min(last, at + half + 1)) for at in range(last))
    return [
        value - (sums[end] - sums[start]) / (end - start) for value, (start, end) in zip(values, spans, strict=True)
    ]


def autocorrelation(values: Sequence[float], most_lag_s: int = MOST_LAG_S) -> list[float]:
    """Return how alike the values are to those some seconds before, from lag 0 on: 1 is equal, 0 unrelated."""
    total = sum(value * value for value in values)
    if not total:
        return [0.0] * (most_lag_s + 1)
    lags = range(min(most_lag_s, len(values) - 1) + 1)
    return [sum(map(float.__mul__, values[lag:], values)) / total for lag in lags]


def recurrence(correlations: Sequence[float]) -> float:
    """Return how much the autocorrelation rises again after a fall: a slow change only falls, a wave comes again."""
    lowest, found = 1.0, 0.0
    for lag, value in enumerate(correlations):
        lowest = min(lowest, value)
        if lag >= LEAST_LAG_S:
            found = max(found, value - lowest)
    return found


def wave(counts: Sequence[int], first_s: float, end_s: float) -> float:
    """Return the height of what comes again in the rate, as a share of its mean. Chance alone gives some."""
    values = [float(count) for count in counts[int(first_s) : int(end_s)]]
    if not any(values):
        return 0.0
    differences = without_trend(values)
    variance = sum(value * value for value in differences) / len(differences)
    strength: float = (recurrence(autocorrelation(differences)) * variance) ** 0.5
    return strength / (sum(values) / len(values))
