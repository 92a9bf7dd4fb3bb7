"""The scenarios: a fleet's hour, or some, with what goes wrong in it. Each has its figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from math import inf
from random import Random
from typing import Any

from syncd.remote.target import AcquiredSandbox
from tests.fleet import figures
from tests.fleet.api_model import ApiModel, Load, Outage
from tests.fleet.events import Timeline
from tests.fleet.laptop import Arrivals, Laptop, Settings
from tests.fleet.working_day import HOUR_S, Act, Person

_MINUTE_S = 60.0
# Connections and pauses of the first minutes are those of a start: nothing is measured before.
WARM_S = 3 * _MINUTE_S
_TTL_S = 7200.0


class Occupation(Enum):
    """What people do in a scenario."""

    WORK = "what they do in a working day"
    NONE = "nothing"


@dataclass(frozen=True)
class Scenario:
    """From `start_s` of the company's day on, for `length_s`. All other times count from its start.

    `boots_s` is the time within which all laptops are started, one after the other; 0: they run. `rules_change_s` is
    when a rule file begins to reach all of them, within a minute. `capacity_share` is that of the API, of the rate in
    the working hour. `follow_s` is how often a tenth of the laptops looks at what its agent makes; 0: none does.
    """

    name: str
    length_s: float
    start_s: float = 11 * HOUR_S
    outages: tuple[Outage, ...] = ()
    deployments: tuple[float, ...] = ()
    settings: Settings = field(default_factory=Settings)
    boots_s: float = 0.0
    rules_change_s: float = inf
    capacity_share: float = inf
    load: Load = field(default_factory=Load)
    occupation: Occupation = Occupation.WORK
    follow_s: float = 0.0

    @property
    def recovers_s(self) -> float:
        """The end of the last outage, or the moment of what else all laptops react to."""
        ends = [outage.end_s for outage in self.outages]
        return max(
            [*ends, *self.deployments, *([self.rules_change_s] if self.rules_change_s < inf else [])], default=0.0
        )


WORKING = Scenario("working hour", WARM_S + 10 * _MINUTE_S)
OUTAGE = Scenario("outage of 5 minutes, 503", WARM_S + 13 * _MINUTE_S, outages=(Outage(WARM_S, WARM_S + 300),))
LONG_OUTAGE = Scenario(
    "outage of 2 hours, no answer",
    WARM_S + 128 * _MINUTE_S,
    start_s=9.5 * HOUR_S,
    outages=(Outage(WARM_S, WARM_S + 7200, None),),
)
RULES_CHANGE = Scenario("a rule file changes everywhere", WARM_S + 10 * _MINUTE_S, rules_change_s=WARM_S)
DAY = Scenario("a day", 13 * HOUR_S, start_s=7 * HOUR_S)
IDLE = Scenario("idle for 3 hours", 3 * HOUR_S, start_s=0.0, occupation=Occupation.NONE)
SCENARIOS = (
    WORKING,
    OUTAGE,
    Scenario(
        "the same with Retry-After: 120",
        WARM_S + 13 * _MINUTE_S,
        outages=(Outage(WARM_S, WARM_S + 300, 503, 120.0),),
    ),
    LONG_OUTAGE,
    Scenario(
        "flapping, a minute each",
        WARM_S + 15 * _MINUTE_S,
        outages=tuple(Outage(WARM_S + at * 60, WARM_S + at * 60 + 60) for at in range(0, 10, 2)),
    ),
    Scenario("a deployment ends all connections", WARM_S + 4 * _MINUTE_S, deployments=(WARM_S + 60,)),
    Scenario(
        "nine o'clock, sandboxes are gone",
        15 * _MINUTE_S,
        start_s=9 * HOUR_S,
        settings=Settings(ttl_s=_TTL_S),
        boots_s=10 * _MINUTE_S,
    ),
    RULES_CHANGE,
    Scenario("a tenth follows its agent, each 10 s", WARM_S + 10 * _MINUTE_S, follow_s=10.0),
    Scenario("the API carries 80 % of the mean", WARM_S + 10 * _MINUTE_S, capacity_share=0.8),
    Scenario("two requests a second a key", WARM_S + 8 * _MINUTE_S, load=Load(key_limit=2)),
    IDLE,
    replace(IDLE, name="the same, sandboxes end", settings=Settings(ttl_s=_TTL_S)),
)


@dataclass
class Run:
    """What happened in a scenario."""

    scenario: Scenario
    laptops: int
    api: ApiModel
    arrivals: Arrivals


def simulate(scenario: Scenario, laptops: int, seed: int, working_rate: float = inf) -> Run:
    """Run a scenario. `working_rate` is what the API's capacity is a share of."""
    timeline, arrivals = Timeline(), Arrivals()
    load = scenario.load
    if scenario.capacity_share < inf:
        load = replace(load, capacity_per_s=scenario.capacity_share * working_rate)
    api = ApiModel(Random(f"{seed} api"), load, scenario.outages, scenario.deployments, scenario.length_s)
    for number in range(laptops):
        random, person_random = Random(f"{seed} laptop {number}"), Random(f"{seed} person {number}")
        settings = replace(scenario.settings, follow_s=0.0 if number % 10 else scenario.follow_s)
        laptop = Laptop(number, timeline, api, random, settings, arrivals)
        laptop.know(_sandbox_of(scenario, number))
        boots_s = scenario.boots_s * person_random.random()
        if scenario.boots_s:
            laptop.wake_at_network(boots_s + 1.0 + 5.0 * random.random())
        laptop.start(boots_s, random.random() * (2.0 if scenario.boots_s else scenario.settings.rescan_s))
        if scenario.occupation is Occupation.WORK:
            acts = Person.of(person_random).acts(person_random, scenario.start_s + boots_s)
            _next_act(timeline, scenario.start_s, laptop, acts)
        if scenario.rules_change_s < inf:
            at_s = scenario.rules_change_s + _MINUTE_S * person_random.random()
            timeline.at(at_s, lambda laptop: laptop.change_rules(), laptop)
    timeline.run(scenario.length_s)
    return Run(scenario, laptops, api, arrivals)


def _sandbox_of(scenario: Scenario, number: int) -> AcquiredSandbox | None:
    """Return the acquired sandbox at the beginning: one that ended in the night, or one of this hour."""
    ttl_s = scenario.settings.ttl_s
    if ttl_s is None:
        return None
    began_s = -12 * HOUR_S if scenario.boots_s else -ttl_s * (number % 97) / 97
    return AcquiredSandbox(str(number), began_s, began_s + ttl_s, {})


def _next_act(timeline: Timeline, start_s: float, laptop: Laptop, acts: Iterator[tuple[float, Act]]) -> None:
    at_s, act = next(acts)

    def done(act: Act) -> None:
        laptop.act(act)
        _next_act(timeline, start_s, laptop, acts)

    timeline.at(at_s - start_s, done, act)


def figures_of(run: Run, working_peak: float) -> dict[str, Any]:
    """Return the figures of a run, by name."""
    api, arrivals, scenario = run.api, run.arrivals, run.scenario
    counts, ends_s, recovers_s = api.requests, scenario.length_s, scenario.recovers_s
    first_s = 0.0 if scenario.boots_s or scenario.occupation is Occupation.NONE else WARM_S
    syncs = arrivals.syncs.total()
    changes = list(zip(arrivals.saved_s, arrivals.arrived_s, arrivals.online_s, strict=True))
    waits = [arrived - max(saved, online) for saved, arrived, online in changes]
    ended_s = min((outage.end_s for outage in scenario.outages), default=recovers_s)
    peak = figures.peak(counts, ended_s or first_s, ends_s)
    beyond = [arrived - max(recovers_s, online) for saved, arrived, online in changes if saved < recovers_s < arrived]
    # An outage is the same for all; who was away for its length only looks better served.
    served = [1.0] if scenario.outages else sorted(_share_served(api, number) for number in range(run.laptops))
    sent = sum(counts)
    requests = api.ops.total()
    return {
        "requests": requests,
        "by_kind": dict(api.ops),
        "api_requests": sent,
        "syncs": syncs,
        "api_per_s": round(figures.mean(counts, first_s, ends_s), 2),
        "peak_per_s": round(peak, 1),
        "peak_over_working_peak": round(peak / working_peak, 2) if working_peak else 0.0,
        "all_recovered_after_s": round(max(beyond, default=0.0), 1),
        "wasted_share": round(sum(api.wasted) / sent, 3) if sent else 0.0,
        "wait_median_s": round(figures.quantile(waits, 0.5), 1),
        "wait_99_s": round(figures.quantile(waits, 0.99), 1),
        "flush_median_s": round(figures.quantile(arrivals.awaited_s, 0.5), 1),
        "worst_served_share": round(served[0] / served[len(served) // 2], 2) if served[len(served) // 2] else 1.0,
        "whole_archives": arrivals.whole,
        "syncs_without_look": arrivals.unlooked,
    }


def _share_served(api: ApiModel, number: int) -> float:
    sent = api.served[number] + api.refused[number]
    return api.served[number] / sent if sent else 1.0
