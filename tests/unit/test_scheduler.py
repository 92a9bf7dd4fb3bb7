"""The daemon's next action: requests, pauses, holds, backoff, bursts and the periodic scan, in this order."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from syncd.daemon.scheduler import (
    FOLLOW_MAX_WAIT_S,
    FOLLOW_QUIET_S,
    Due,
    FollowInRepository,
    Hold,
    HoldEnds,
    SaveAgentWork,
    Sync,
    Wait,
    idle_state,
    next_action,
    retry_at_s,
)
from syncd.sync.outcome import SyncReason
from syncd.sync.status_document import State
from syncd.watch.changes import Burst

QUIET_S, LONGEST_S = 1.0, 15.0
NOW_S = 100.0


def due(**values: Any) -> Due:
    return Due(QUIET_S, LONGEST_S, **values)


DUE = Burst(NOW_S - 1, NOW_S - 1)
YOUNG = Burst(NOW_S - 0.5, NOW_S - 0.5)
PERSON = Hold(HoldEnds.WITH_A_PERSON, NOW_S + 60)
CHANGES = Hold(HoldEnds.WITH_CHANGES, NOW_S + 60)
PERSON_NOW = Hold(HoldEnds.WITH_A_PERSON, NOW_S)


@pytest.mark.parametrize(
    ("given", "move"),
    [
        (due(rescan_at_s=NOW_S + 600), Wait(NOW_S + 600)),
        (due(rescan_at_s=NOW_S, save_at_s=NOW_S), SaveAgentWork()),
        (due(rescan_at_s=NOW_S, save_at_s=NOW_S + 1), Sync(SyncReason.RESCAN)),
        (due(rescan_at_s=NOW_S + 600, save_at_s=NOW_S + 1), Wait(NOW_S + 1)),
        (due(rescan_at_s=NOW_S + 600, save_at_s=NOW_S + 700), Wait(NOW_S + 600)),
        (due(paused=True, save_at_s=NOW_S + 1), Wait(NOW_S + 1)),
        (due(rescan_at_s=NOW_S), Sync(SyncReason.RESCAN)),
        (due(burst=YOUNG, rescan_at_s=NOW_S + 600), Wait(NOW_S + 0.5)),
        (due(burst=DUE, rescan_at_s=NOW_S + 600), Sync(SyncReason.CHANGE)),
        (due(burst=YOUNG, rescan_at_s=NOW_S - 5), Wait(NOW_S + 0.5)),
        (due(burst=Burst(NOW_S - 15, NOW_S)), Sync(SyncReason.CHANGE)),
        (due(burst=Burst(NOW_S - 14, NOW_S)), Wait(NOW_S + 1)),
        (due(burst=DUE, not_before_s=NOW_S + 4), Wait(NOW_S + 4)),
        (due(burst=DUE, not_before_s=NOW_S), Sync(SyncReason.RETRY)),
        (due(not_before_s=NOW_S - 1), Sync(SyncReason.RETRY)),
        (due(hold=PERSON, burst=DUE), Wait(NOW_S + 60)),
        (due(hold=PERSON_NOW), Sync(SyncReason.RETRY)),
        (due(hold=CHANGES), Wait(NOW_S + 60)),
        (due(hold=CHANGES, burst=YOUNG), Wait(NOW_S + 0.5)),
        (due(hold=CHANGES, burst=DUE), Sync(SyncReason.RETRY)),
        (due(hold=PERSON, not_before_s=NOW_S - 1), Wait(NOW_S + 60)),
        (due(paused=True, burst=DUE), Wait(inf)),
        (due(paused=True, hold=PERSON_NOW), Wait(inf)),
        (due(paused=True, not_before_s=NOW_S - 1), Wait(inf)),
        (due(paused=True, rescan_at_s=0), Wait(inf)),
        (due(requested=True, paused=True), Sync(SyncReason.ORDER)),
        (due(requested=True, hold=PERSON), Sync(SyncReason.ORDER)),
        (due(requested=True, not_before_s=NOW_S + 60), Sync(SyncReason.ORDER)),
        (due(requested=True, burst=YOUNG), Sync(SyncReason.ORDER)),
        (due(arrived=Burst(NOW_S - 5, NOW_S - 5), rescan_at_s=NOW_S + 600), FollowInRepository()),
        (due(arrived=Burst(NOW_S, NOW_S), rescan_at_s=NOW_S + 600), Wait(NOW_S + 5)),
        (due(arrived=Burst(NOW_S - 5, NOW_S - 5), rescan_at_s=NOW_S), Sync(SyncReason.RESCAN)),
        (due(arrived=Burst(NOW_S - 5, NOW_S - 5), burst=YOUNG), Wait(NOW_S + 0.5)),
        (due(arrived=Burst(NOW_S - 5, NOW_S - 5), not_before_s=NOW_S + 4), Wait(NOW_S + 4)),
        (due(arrived=Burst(NOW_S - 5, NOW_S - 5), hold=PERSON), Wait(NOW_S + 60)),
        (due(arrived=Burst(NOW_S - 5, NOW_S - 5), paused=True), Wait(inf)),
        (due(arrived=Burst(NOW_S - 5, NOW_S - 5), written_to=True), Wait(inf)),
    ],
)
def test_next_action(given: Due, move: Sync | SaveAgentWork | FollowInRepository | Wait) -> None:
    """A request goes first, then a pause, a hold, backoff, a burst, the periodic scan, and last the repository."""
    assert next_action(given, NOW_S) == move


@pytest.mark.parametrize(
    ("given", "state"),
    [
        (due(), State.WATCHING),
        (due(starting=True), State.STARTING),
        (due(starting=True, burst=YOUNG), State.DEBOUNCING),
        (due(starting=True, paused=True), State.PAUSED),
        (due(burst=YOUNG), State.DEBOUNCING),
        (due(burst=YOUNG, not_before_s=NOW_S), State.RETRYING),
        (due(burst=YOUNG, not_before_s=NOW_S, hold=PERSON), State.HELD),
        (due(burst=YOUNG, not_before_s=NOW_S, hold=PERSON, paused=True), State.PAUSED),
    ],
)
def test_the_state_while_it_waits(given: Due, state: State) -> None:
    """The state shows what a person requested first, then what a person must fix, then what passes by itself."""
    assert idle_state(given) is state


@pytest.mark.parametrize(
    ("changes_at_s", "expected"), [(inf, 30.0), (-5.0, 1.0), (1.0, 1.0), (2.5, 2.5), (30.0, 30.0), (31.0, 30.0)]
)
def test_a_newer_change_ends_a_wait(changes_at_s: float, expected: float) -> None:
    """Once it is due, and never before the shortest wait."""
    assert retry_at_s(30.0, 1.0, changes_at_s) == expected
    assert retry_at_s(30.0, 30.0, changes_at_s) == 30.0


def test_an_event_makes_another_value() -> None:
    """A burst goes on with each change, as do the syncs that the repository is to follow."""
    before = due()
    after = before.changed(NOW_S).changed(NOW_S + 1).synced(NOW_S).synced(NOW_S + 2)
    assert (after.burst, after.arrived) == (Burst(NOW_S, NOW_S + 1), Burst(NOW_S, NOW_S + 2))
    assert (before, after.changes_at_s) == (due(), NOW_S + 1 + QUIET_S)


def test_the_repository_follows_a_burst_of_syncs() -> None:
    """It follows some seconds after the last one, and at the latest a while after the first one that it lacks."""
    assert due().follow_at_s == inf
    assert due(arrived=Burst(NOW_S, NOW_S + 3)).follow_at_s == NOW_S + 3 + FOLLOW_QUIET_S
    assert due(arrived=Burst(NOW_S, NOW_S + 29)).follow_at_s == NOW_S + FOLLOW_MAX_WAIT_S
