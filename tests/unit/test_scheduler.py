"""What the daemon does next: bursts, orders, pauses, holds, back-off and the periodic look, each before the next."""

from __future__ import annotations

import pytest

from syncd.daemon.scheduler import Hold, HoldEnds, SchedulerInput, Sync, Wait, ends_pause, idle_state, next_action
from syncd.sync.status_document import State
from syncd.sync.sync_reason import SyncReason
from syncd.watch.debounce import Burst, due_s, extend

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
    ],
)
def test_next_move(scheduler_input: SchedulerInput, move: Sync | Wait) -> None:
    """An order goes first, then a pause, a hold, back-off, a burst, and last the periodic look."""
    assert next_action(scheduler_input, NOW_S, QUIET_S, LONGEST_S) == move


@pytest.mark.parametrize(
    ("scheduler_input", "state"),
    [
        (SchedulerInput(), State.WATCHING),
        (SchedulerInput(burst=YOUNG), State.DEBOUNCING),
        (SchedulerInput(burst=YOUNG, not_before_s=NOW_S), State.RETRYING),
        (SchedulerInput(burst=YOUNG, not_before_s=NOW_S, hold=PERSON), State.HELD),
        (SchedulerInput(burst=YOUNG, not_before_s=NOW_S, hold=PERSON, paused=True), State.PAUSED),
    ],
)
def test_what_it_does_while_it_waits(scheduler_input: SchedulerInput, state: State) -> None:
    """What a person asked for first, then what a person must mend, then what passes by itself."""
    assert idle_state(scheduler_input) is state


def test_a_burst_is_quiet_time_after_its_last_change() -> None:
    """Each change puts the sync off by the quiet time."""
    burst = extend(extend(extend(None, 10.0), 10.4), 10.9)
    assert burst == Burst(10.0, 10.9)
    assert due_s(burst, QUIET_S, LONGEST_S) == 11.9


def test_no_writer_stretches_a_burst_for_ever() -> None:
    """However often something changes, the longest wait after the first change is kept."""
    burst = None
    for tenth in range(1000):
        burst = extend(burst, 10.0 + tenth / 10)
    assert burst is not None
    assert due_s(burst, QUIET_S, LONGEST_S) == 25.0


def test_no_quiet_time() -> None:
    """With a debounce of 0 a change is due at once; a longest wait below the quiet time wins."""
    assert due_s(extend(None, 5.0), 0.0, LONGEST_S) == 5.0
    assert due_s(extend(None, 5.0), 10.0, 2.0) == 7.0


@pytest.mark.parametrize(
    ("burst", "least_s", "expected"),
    [
        (None, NOW_S, None),
        (DUE, NOW_S + 0.5, NOW_S + 0.5),
        (DUE, NOW_S - 9, NOW_S),
        (YOUNG, NOW_S - 9, NOW_S + 0.5),
        (YOUNG, NOW_S + 3, NOW_S + 3),
    ],
)
def test_a_newer_change_cuts_a_pause(burst: Burst | None, least_s: float, expected: float | None) -> None:
    """Only a burst that is over cuts the wait, never before the least wait."""
    assert ends_pause(SchedulerInput(burst=burst), NOW_S, least_s, QUIET_S, LONGEST_S) == expected
