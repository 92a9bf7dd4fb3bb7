"""The daemon's next action: requests, pauses, holds, backoff, bursts and the periodic scan, in this order."""

from __future__ import annotations

from math import inf

import pytest

from syncd.daemon.scheduler import (
    Hold,
    HoldEnds,
    RetryPause,
    SaveAgentWork,
    SchedulerInput,
    Sync,
    Wait,
    idle_state,
    next_action,
)
from syncd.sync.outcome import SyncReason
from syncd.sync.status_document import State
from syncd.watch.changes import Burst, due_s, extend

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
        (SchedulerInput(rescan_at_s=NOW_S, poll_at_s=NOW_S), Sync(SyncReason.RESCAN)),
        (SchedulerInput(rescan_at_s=NOW_S + 600, poll_at_s=NOW_S), Sync(SyncReason.POLL)),
        (SchedulerInput(rescan_at_s=NOW_S + 600, poll_at_s=NOW_S + 2), Wait(NOW_S + 2)),
        (SchedulerInput(rescan_at_s=NOW_S + 600, poll_at_s=NOW_S, burst=YOUNG), Wait(NOW_S + 0.5)),
        (SchedulerInput(paused=True, poll_at_s=NOW_S), Wait(None)),
        (SchedulerInput(hold=PERSON, poll_at_s=NOW_S), Wait(NOW_S + 60)),
        (SchedulerInput(not_before_s=NOW_S + 4, poll_at_s=NOW_S), Wait(NOW_S + 4)),
        (SchedulerInput(burst=YOUNG, rescan_at_s=NOW_S + 600), Wait(NOW_S + 0.5)),
        (SchedulerInput(burst=DUE, rescan_at_s=NOW_S + 600), Sync(SyncReason.CHANGE)),
        (SchedulerInput(burst=YOUNG, rescan_at_s=NOW_S - 5), Wait(NOW_S + 0.5)),
        (SchedulerInput(burst=Burst(NOW_S - 15, NOW_S)), Sync(SyncReason.CHANGE)),
        (SchedulerInput(burst=Burst(NOW_S - 14, NOW_S)), Wait(NOW_S + 1)),
        (SchedulerInput(burst=DUE, not_before_s=NOW_S + 4), Wait(NOW_S + 4)),
        (SchedulerInput(burst=DUE, not_before_s=NOW_S), Sync(SyncReason.RETRY)),
        (SchedulerInput(not_before_s=NOW_S - 1), Sync(SyncReason.RETRY)),
        (SchedulerInput(not_before_s=NOW_S + 300, changes_not_before_s=NOW_S), Wait(NOW_S + 300)),
        (SchedulerInput(burst=DUE, not_before_s=NOW_S + 300, changes_not_before_s=NOW_S), Sync(SyncReason.RETRY)),
        (SchedulerInput(burst=DUE, not_before_s=NOW_S + 300, changes_not_before_s=NOW_S + 4), Wait(NOW_S + 4)),
        (SchedulerInput(burst=YOUNG, not_before_s=NOW_S + 300, changes_not_before_s=NOW_S), Wait(NOW_S + 0.5)),
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
    ],
)
def test_next_action(scheduler_input: SchedulerInput, move: Sync | SaveAgentWork | Wait) -> None:
    """A request goes first, then a pause, a hold, backoff, a burst, and last the periodic scan."""
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


def test_the_max_wait() -> None:
    """However often something changes, the sync is due after the max wait."""
    burst = None
    for tenth in range(1000):
        burst = extend(burst, 10.0 + tenth / 10)
    assert burst is not None
    assert due_s(burst, QUIET_S, LONGEST_S) == 25.0


@pytest.mark.parametrize(
    ("burst", "started_s", "is_offline", "expected"),
    [
        (None, NOW_S - 10, True, NOW_S + 140),
        (DUE, NOW_S - 0.5, True, NOW_S + 0.5),
        (DUE, NOW_S - 10, True, NOW_S),
        (YOUNG, NOW_S - 10, True, NOW_S + 0.5),
        (YOUNG, NOW_S + 2, True, NOW_S + 3),
        (DUE, NOW_S - 10, False, NOW_S + 20),
        (YOUNG, NOW_S - 40, False, NOW_S + 0.5),
    ],
)
def test_a_newer_change_ends_a_wait(burst: Burst | None, started_s: float, is_offline: bool, expected: float) -> None:
    """Only a finished burst ends the wait to retry, and never before the shortest wait, or a short outage's."""
    pause = RetryPause(started_s, wait_s=30.0, longest_s=150.0, first_s=1.0, is_offline=is_offline)
    changes_due_s = due_s(burst, QUIET_S, LONGEST_S) if burst is not None else None
    assert pause.ends_s(0.0, -inf, changes_due_s) == expected


@pytest.mark.parametrize(
    ("slept_s", "back_s", "is_offline", "expected"),
    [
        (0.0, -1.0, True, 150.0),
        (0.0, -1.0, False, 150.0),
        (5.0, -1.0, True, 25.0),
        (40.0, -1.0, False, -10.0),
        (0.0, 0.0, True, 1.0),
        (0.0, 12.0, True, 13.0),
        (0.0, 40.0, True, 30.0),
        (0.0, 12.0, False, 30.0),
    ],
)
def test_a_suspend_or_the_network_ends_a_long_wait(
    slept_s: float, back_s: float, is_offline: bool, expected: float
) -> None:
    """What is left is a short outage's wait, less the sleep; where no server answered, the network's return ends it."""
    pause = RetryPause(NOW_S, wait_s=30.0, longest_s=150.0, first_s=1.0, is_offline=is_offline)
    assert pause.ends_s(slept_s, NOW_S + back_s, None) == NOW_S + expected
