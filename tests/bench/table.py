"""The table of results: a line a measurement, its comparison, and the ratio."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median


def seconds(value: float) -> str:
    if value >= 10:
        return f"{value:.1f} s"
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.0f} ms" if value >= 0.1 else f"{value * 1e3:.1f} ms"


def megabytes(value: float) -> str:
    return f"{value / 1e6:.1f} MB"


def microseconds(value: float) -> str:
    return f"{value * 1e6:.2f} us"


def mebibytes(value: float) -> str:
    return f"{value / (1 << 20):.1f} MiB"


def number(value: float) -> str:
    return f"{value:,.0f}"


@dataclass(frozen=True)
class Row:
    """One measurement.

    `ratio` is the rival's figure by syncd's, so more is better; `noise` the rival's largest figure by its least.
    """

    measure: str
    rival: str
    ours: str
    theirs: str = ""
    ratio: float | None = None
    goal: str = ""
    noise: float | None = None


@dataclass(frozen=True)
class Skipped:
    """A measurement that is not possible, and why."""

    measure: str
    why: str


@dataclass(frozen=True)
class Line:
    """A line of a table with other columns, printed as it is."""

    text: str


def compared(
    measure: str,
    rival: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    unit: Callable[[float], str] = seconds,
    goal: str = "",
) -> Row:
    """Return the row for the figures of some rounds on both sides."""
    mine, other = median(ours), median(theirs)
    noise = max(theirs) / min(theirs) if min(theirs) > 0 else None
    return Row(measure, rival, unit(mine), unit(other), other / mine if mine else None, goal, noise)


def alone(measure: str, ours: Sequence[float], *, unit: Callable[[float], str] = seconds, goal: str = "") -> Row:
    """Return the row for a figure without a comparison."""
    return Row(measure, "", unit(median(ours)), goal=goal, noise=max(ours) / min(ours) if min(ours) > 0 else None)


_FORM = "{:<46} {:<34} {:>10} {:>10} {:>8} {:>9} {:>6}"


class Printer:
    """Prints each row as soon as it is measured; the head comes before the first row with its columns."""

    def __init__(self) -> None:
        self._headed = False

    def print(self, rows: Iterable[Row | Skipped | Line]) -> None:
        for row in rows:
            if isinstance(row, Line):
                self._headed = False
                print(row.text, flush=True)
                continue
            if not self._headed:
                self._headed = True
                print(_FORM.format("measure", "rival", "ours", "rival's", "ratio", "goal", "noise").rstrip())
                print(_FORM.format(*("-" * width for width in (46, 34, 10, 10, 8, 9, 6))), flush=True)
            print(_text(row), flush=True)


def _text(row: Row | Skipped) -> str:
    if isinstance(row, Skipped):
        return f"{row.measure:<46} skipped: {row.why}"
    ratio = "" if row.ratio is None else f"{row.ratio:.{0 if row.ratio >= 100 else 1 if row.ratio >= 10 else 2}f}x"
    noise = "" if row.noise is None else f"{row.noise:.2f}"
    return _FORM.format(row.measure, row.rival, row.ours, row.theirs, ratio, row.goal, noise).rstrip()
