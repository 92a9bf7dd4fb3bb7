"""The daemon's next action: requests, pauses, holds, backoff, bursts and the periodic scan, in this order."""

from __future__ import annotations

from math import inf

import pytest

from syncd.daemon.scheduler import (
    FOLLOW_MAX_WAIT_S,
    FOLLOW_QUIET_S,
    FollowInRepository,
    Hold,
    HoldEnds,
    SaveAgentWork,
    SchedulerInput,
    Sync,
    Wait,
    follow_due_s,
    idle_state,
    next_action,
    retry_at_s,
)
from syncd.sync.outcome import SyncReason
from syncd.sync.status_document import State
from syncd.watch.changes import Burst

QUIET_S, LONGEST_S = 1.0, 15.0
NOW_S = 100.0

DUE = Burst(NOW_S - 1, NOW_S - 1)
YOUNG = Burst(NOW_S - 0.5, NOW_S - 0.5)
PERSON = Hold(HoldEnds.WITH_A_PERSON, NOW_S + 60)
CHANGES = Hold(HoldEnds.WITH_CHANGES, NOW_S + 60)
PERSON_NOW = Hold(HoldEnds.WITH_A_PERSON, NOW_S)


@pytest.mark.parametrize(
    ("scheduler_input", "move"),
    [
        (SchedulerInput(rescan_at_s=NOW_S + 600), Wait(NOW_S + 600)),
        (SchedulerInput(rescan_at_s=NOW_S, save_at_s=NOW_S), SaveAgentWork()),
        (SchedulerInput(rescan_at_s=NOW_S, save_at_s=NOW_S + 1), Sync(SyncReason.RESCAN)),
        (SchedulerInput(rescan_at_s=NOW_S + 600, save_at_s=NOW_S + 1), Wait(NOW_S + 1)),
        (SchedulerInput(rescan_at_s=NOW_S + 600, save_at_s=NOW_S + 700), Wait(NOW_S + 600)),
        (SchedulerInput(paused=True, save_at_s=NOW_S + 1), Wait(NOW_S + 1)),
        (SchedulerInput(rescan_at_s=NOW_S), Sync(SyncReason.RESCAN)),
        (SchedulerInput(burst=YOUNG, rescan_at_s=NOW_S + 600), Wait(NOW_S + 0.5)),
        (SchedulerInput(burst=DUE, rescan_at_s=NOW_S + 600), Sync(SyncReason.CHANGE)),
        (SchedulerInput(burst=YOUNG, rescan_at_s=NOW_S - 5), Wait(NOW_S + 0.5)),
        (SchedulerInput(burst=Burst(NOW_S - 15, NOW_S)), Sync(SyncReason.CHANGE)),
        (SchedulerInput(burst=Burst(NOW_S - 14, NOW_S)), Wait(NOW_S + 1)),
        (SchedulerInput(burst=DUE, not_before_s=NOW_S + 4), Wait(NOW_S + 4)),
        (SchedulerInput(burst=DUE, not_before_s=NOW_S), Sync(SyncReason.RETRY)),
        (SchedulerInput(not_before_s=NOW_S - 1), Sync(SyncReason.RETRY)),
        (SchedulerInput(hold=PERSON, burst=DUE), Wait(NOW_S + 60)),
        (SchedulerInput(hold=PERSON_NOW), Sync(SyncReason.RETRY)),
        (SchedulerInput(hold=CHANGES), Wait(NOW_S + 60)),
        (SchedulerInput(hold=CHANGES, burst=YOUNG), Wait(NOW_S + 0.5)),
        (SchedulerInput(hold=CHANGES, burst=DUE), Sync(SyncReason.RETRY)),
        (SchedulerInput(hold=PERSON, not_before_s=NOW_S - 1), Wait(NOW_S + 60)),
        (SchedulerInput(paused=True, burst=DUE), Wait(None)),
        (SchedulerInput(paused=True, hold=PERSON_NOW), Wait(None)),
        (SchedulerInput(paused=True, not_before_s=NOW_S - 1), Wait(None)),
        (SchedulerInput(paused=True, rescan_at_s=0), Wait(None)),
        (SchedulerInput(requested=True, paused=True), Sync(SyncReason.ORDER)),
        (SchedulerInput(requested=True, hold=PERSON), Sync(SyncReason.ORDER)),
        (SchedulerInput(requested=True, not_before_s=NOW_S + 60), Sync(SyncReason.ORDER)),
        (SchedulerInput(requested=True, burst=YOUNG), Sync(SyncReason.ORDER)),
        (SchedulerInput(follow_at_s=NOW_S, rescan_at_s=NOW_S + 600), FollowInRepository()),
        (SchedulerInput(follow_at_s=NOW_S + 5, rescan_at_s=NOW_S + 600), Wait(NOW_S + 5)),
        (SchedulerInput(follow_at_s=NOW_S, rescan_at_s=NOW_S), Sync(SyncReason.RESCAN)),
        (SchedulerInput(follow_at_s=NOW_S, burst=YOUNG), Wait(NOW_S + 0.5)),
        (SchedulerInput(follow_at_s=NOW_S, not_before_s=NOW_S + 4), Wait(NOW_S + 4)),
        (SchedulerInput(follow_at_s=NOW_S, hold=PERSON), Wait(NOW_S + 60)),
        (SchedulerInput(follow_at_s=NOW_S, paused=True), Wait(None)),
        (SchedulerInput(follow_at_s=NOW_S, written_to=True), Wait(None)),
    ],
)
def test_next_action(scheduler_input: SchedulerInput, move: Sync | SaveAgentWork | FollowInRepository | Wait) -> None:
    """A request goes first, then a pause, a hold, backoff, a burst, the periodic scan, and last the repository."""
    assert next_action(scheduler_input, NOW_S, QUIET_S, LONGEST_S) == move


@pytest.mark.parametrize(
    ("scheduler_input", "state"),
    [
        (SchedulerInput(), State.WATCHING),
        (SchedulerInput(starting=True), State.STARTING),
        (SchedulerInput(starting=True, burst=YOUNG), State.DEBOUNCING),
        (SchedulerInput(starting=True, paused=True), State.PAUSED),
        (SchedulerInput(burst=YOUNG), State.DEBOUNCING),
        (SchedulerInput(burst=YOUNG, not_before_s=NOW_S), State.RETRYING),
        (SchedulerInput(burst=YOUNG, not_before_s=NOW_S, hold=PERSON), State.HELD),
        (SchedulerInput(burst=YOUNG, not_before_s=NOW_S, hold=PERSON, paused=True), State.PAUSED),
    ],
)
def test_the_state_while_it_waits(scheduler_input: SchedulerInput, state: State) -> None:
    """The state shows what a person requested first, then what a person must fix, then what passes by itself."""
    assert idle_state(scheduler_input) is state


@pytest.mark.parametrize(
    ("changes_due_s", "expected"), [(None, 30.0), (-5.0, 1.0), (1.0, 1.0), (2.5, 2.5), (30.0, 30.0), (31.0, 30.0)]
)
def test_a_newer_change_ends_a_wait(changes_due_s: float | None, expected: float) -> None:
    """Once it is due, and never before the shortest wait."""
    assert retry_at_s(30.0, 1.0, changes_due_s) == expected
    assert retry_at_s(30.0, 30.0, changes_due_s) == 30.0


def test_the_repository_follows_a_burst_of_syncs() -> None:
    """It follows some seconds after the last one, and at the latest a while after the first one that it lacks."""
    assert follow_due_s(None) == inf
    assert follow_due_s(Burst(NOW_S, NOW_S + 3)) == NOW_S + 3 + FOLLOW_QUIET_S
    assert follow_due_s(Burst(NOW_S, NOW_S + 29)) == NOW_S + FOLLOW_MAX_WAIT_S
