"""Runs the scenarios for fleets of some sizes, and shows their figures as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tests.fleet import figures
from tests.fleet.scenarios import (
    DAY,
    IDLE,
    SCENARIOS,
    WARM_S,
    WORKING,
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
    ("whole_archives", "whole"),
    ("syncs_without_look", "no look"),
)
_A_DAYS_LAPTOPS = 40


def run_fleet(
    laptops: int, seed: int, scenarios: Sequence[Scenario] = SCENARIOS
) -> Iterator[tuple[Scenario, dict[str, Any]]]:
    """Yield each scenario's figures; that of the working hour comes first, as others are compared with it."""
    working_peak = working_rate = 0.0
    for scenario in scenarios:
        run = simulate(scenario, laptops, seed, working_rate)
        if scenario is WORKING:
            working_peak = figures.peak(run.api.requests, WARM_S, scenario.length_s)
            working_rate = figures.mean(run.api.requests, WARM_S, scenario.length_s)
        yield scenario, figures_of(run, working_peak)


def day(seed: int) -> dict[str, Any]:
    """Return the figures of a whole day, of a few laptops, and of one in which everything is sent once more."""
    normal = simulate(DAY, _A_DAYS_LAPTOPS, seed)
    whole = simulate(replace(DAY, rules_change_s=2 * HOUR_S), _A_DAYS_LAPTOPS, seed)
    return {
        "syncs_a_laptop_a_day": round(normal.arrivals.syncs.total() / _A_DAYS_LAPTOPS),
        "requests_a_laptop_a_day": round(normal.api.ops.total() / _A_DAYS_LAPTOPS),
        "whole_archive_day_over_normal": round(whole.api.ops.total() / normal.api.ops.total(), 3),
    }


def summary(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what a fleet of this size is judged by."""
    working, idle = found[WORKING.name], found[IDLE.name]
    outages = [found[scenario.name] for scenario in SCENARIOS if scenario.outages and scenario.name in found]
    kinds = working["by_kind"]
    return {
        "requests_a_sync": round(working["requests"] / working["syncs"], 2),
        "api_requests_a_sync": round(working["api_requests"] / working["syncs"], 2),
        "recovery_peak_over_working_peak": max(each["peak_over_working_peak"] for each in outages),
        "wait_beyond_outage_max_s": max(each["all_recovered_after_s"] for each in outages),
        "idle_requests": idle["requests"],
        "requests_by_kind": {op: round(count / working["syncs"], 2) for op, count in kinds.items()},
    }


def printed(scenario: str, found: dict[str, Any]) -> str:
    """Return a line of the table."""
    return f"{scenario:<36}" + "".join(f"{found[key]:>13,}" for key, _ in _COLUMNS)


def heading(laptops: int) -> str:
    """Return the head of the table for a fleet of this size."""
    return f"\n{f'{laptops:,} laptops':<36}" + "".join(f"{name:>13}" for _, name in _COLUMNS)
