"""Runs the scenarios for fleets of some sizes, and shows their figures as a table, as JSON, or as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.fleet import figures
from tests.fleet.plot import Band, Curve, picture
from tests.fleet.rules import EARLIER, PRESENT, Rules
from tests.fleet.scenarios import (
    DAY,
    IDLE,
    LONG_OUTAGE,
    OUTAGE,
    SCENARIOS,
    WARM_S,
    WORKING,
    Run,
    Scenario,
    figures_of,
    simulate,
)
from tests.fleet.working_day import HOUR_S

_COLUMNS = (
    ("api_per_s", "mean/s"),
    ("peak_per_s", "peak/s"),
    ("peak_over_working_peak", "peak/work"),
    ("all_recovered_after_s", "recovered s"),
    ("wasted_share", "wasted"),
    ("wait_median_s", "wait 50 %"),
    ("wait_99_s", "wait 99 %"),
    ("flush_median_s", "flush"),
    ("worst_served_share", "worst/median"),
    ("wave", "wave"),
    ("whole_archives", "whole"),
    ("syncs_without_look", "no look"),
)
_A_DAYS_LAPTOPS = 40
# What the pictures of an outage show, from its end.
_BEFORE_S, _AFTER_S = 7 * 60.0, 8 * 60.0
PICTURES = Path(__file__).resolve().parents[2] / "docs/fleet"


def run_fleet(
    laptops: int, seed: int, rules: Rules, scenarios: Sequence[Scenario] = SCENARIOS
) -> Iterator[tuple[Scenario, dict[str, Any]]]:
    """Yield each scenario's figures; that of the working hour comes first, as others are compared with it."""
    working_peak = working_rate = 0.0
    for scenario in scenarios:
        run = simulate(scenario, laptops, seed, rules, working_rate)
        if scenario is WORKING:
            working_peak = figures.peak(run.api.requests, WARM_S, scenario.length_s)
            working_rate = figures.mean(run.api.requests, WARM_S, scenario.length_s)
        yield scenario, figures_of(run, working_peak)


def day(seed: int) -> dict[str, Any]:
    """Return the figures of a whole day, of a few laptops, and of one in which everything is sent once more."""
    normal = simulate(DAY, _A_DAYS_LAPTOPS, seed, PRESENT)
    whole = simulate(replace(DAY, rules_change_s=2 * HOUR_S), _A_DAYS_LAPTOPS, seed, PRESENT)
    return {
        "syncs_a_laptop_a_day": round(normal.arrivals.syncs.total() / _A_DAYS_LAPTOPS),
        "requests_a_laptop_a_day": round(normal.api.ops.total() / _A_DAYS_LAPTOPS),
        "whole_archive_day_over_normal": round(whole.api.ops.total() / normal.api.ops.total(), 3),
    }


def summary(laptops: int, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what a fleet of this size is judged by."""
    working, idle = found[WORKING.name], found[IDLE.name]
    outages = [found[scenario.name] for scenario in SCENARIOS if scenario.outages and scenario.name in found]
    kinds = working["by_kind"]
    return {
        "laptops": laptops,
        "requests_a_sync": round(working["requests"] / working["syncs"], 2),
        "api_requests_a_sync": round(working["api_requests"] / working["syncs"], 2),
        "recovery_peak_over_working_peak": max(each["peak_over_working_peak"] for each in outages),
        "wait_beyond_outage_max_s": max(each["all_recovered_after_s"] for each in outages),
        "idle_requests": idle["requests"],
        "requests_by_kind": {op: round(count / working["syncs"], 2) for op, count in kinds.items()},
        "scenarios": found,
    }


def printed(scenario: str, found: dict[str, Any]) -> str:
    """Return a line of the table."""
    return f"{scenario:<36}" + "".join(f"{found[key]:>13,}" for key, _ in _COLUMNS)


def heading(laptops: int) -> str:
    """Return the head of the table for a fleet of this size."""
    return f"\n{f'{laptops:,} laptops':<36}" + "".join(f"{name:>13}" for _, name in _COLUMNS)


def draw(laptops: int, seed: int) -> list[Path]:
    """Draw the pictures of the documents, and return their paths."""
    PICTURES.mkdir(exist_ok=True)
    runs = {
        (scenario.name, name): simulate(scenario, laptops, seed, rules)
        for scenario in (OUTAGE, LONG_OUTAGE)
        for name, rules in (("now", PRESENT), ("before", EARLIER))
    }
    drawn = []
    for scenario, file in ((OUTAGE, "outage"), (LONG_OUTAGE, "long-outage")):
        curves = [Curve(name, _rate(runs[scenario.name, name])) for name in ("now", "before")]
        outage = scenario.outages[0]
        band = Band("outage", max(-_BEFORE_S, outage.start_s - outage.end_s) / 60, 0.0)
        title = f"{laptops:,} laptops, {scenario.name}"
        drawn.append(_write(file, picture(title, "minutes from its end", "API requests a second", curves, [band])))
    waves = [
        Curve(f"{name}, {title}", _waves(runs[scenario.name, name]))
        for scenario, title in ((OUTAGE, "5 minutes"), (LONG_OUTAGE, "2 hours"))
        for name in ("now", "before")
    ]
    title = f"{laptops:,} laptops: how the rate after an outage repeats itself"
    drawn.append(_write("waves", picture(title, "seconds later", "autocorrelation", waves, y_span=(-0.5, 1.0))))
    return drawn


def _rate(run: Run) -> list[tuple[float, float]]:
    """The rate around the outage's end, in minutes from it."""
    outage = run.scenario.outages[0]
    first_s, end_s = outage.end_s - _BEFORE_S, outage.end_s + _AFTER_S
    found = figures.rates(run.api.requests, first_s, end_s)
    return [((first_s + at * figures.WINDOW_S - outage.end_s) / 60, rate) for at, rate in enumerate(found)]


def _waves(run: Run) -> list[tuple[float, float]]:
    counts = [
        float(count) for count in run.api.requests[int(run.scenario.recovers_s + 60) : int(run.scenario.length_s)]
    ]
    found = figures.autocorrelation(figures.without_trend(counts), 200)
    return [(float(lag), value) for lag, value in enumerate(found) if lag >= figures.LEAST_LAG_S]


def _write(name: str, text: str) -> Path:
    path = PICTURES / f"{name}.svg"
    path.write_text(text, "utf-8")
    return path
