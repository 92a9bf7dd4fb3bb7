"""What the daemon does next: the one decision of its loop, from what is known and what time it is.

All times are monotonic seconds. An order is a person's or a script's wish (push, flush, SIGUSR1) and goes before quiet
time and back-off. A hold waits for a person; some holds end when the workspace changes, a refused key does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from syncd.sync.status_document import State
from syncd.sync.sync_reason import SyncReason
from syncd.watch.debounce import Burst, due_s


class HoldEnds(Enum):
    """What may end a hold early."""

    WITH_CHANGES = "the workspace itself is wrong: look again when it changes"
    WITH_A_PERSON = "key or sandbox are refused: changes at home do not mend that"


@dataclass(frozen=True)
class Hold:
    """Why nothing is synced, and when to look again by itself."""

    ends: HoldEnds
    look_at_s: float


@dataclass(frozen=True)
class SchedulerInput:
    """All that the decision rests on."""

    burst: Burst | None = None
    requested: bool = False
    paused: bool = False
    hold: Hold | None = None
    not_before_s: float | None = None
    rescan_at_s: float = 0.0


@dataclass(frozen=True)
class Sync:
    """Sync now."""

    reason: SyncReason


@dataclass(frozen=True)
class Wait:
    """Nothing to do until then, unless something happens. None: until something happens."""

    until_s: float | None


def next_action(scheduler_input: SchedulerInput, now_s: float, quiet_s: float, max_wait_s: float) -> Sync | Wait:
    """Whether to sync now, and why, or until when to wait."""
    if scheduler_input.requested:
        return Sync(SyncReason.ORDER)
    if scheduler_input.paused:
        return Wait(None)
    if scheduler_input.hold is not None:
        due = scheduler_input.hold.look_at_s
        if scheduler_input.burst is not None and scheduler_input.hold.ends is HoldEnds.WITH_CHANGES:
            due = min(due, due_s(scheduler_input.burst, quiet_s, max_wait_s))
        return Sync(SyncReason.RETRY) if now_s >= due else Wait(due)
    if scheduler_input.not_before_s is not None:
        return Sync(SyncReason.RETRY) if now_s >= scheduler_input.not_before_s else Wait(scheduler_input.not_before_s)
    if scheduler_input.burst is not None:
        due = due_s(scheduler_input.burst, quiet_s, max_wait_s)
        return Sync(SyncReason.CHANGE) if now_s >= due else Wait(due)
    return Sync(SyncReason.RESCAN) if now_s >= scheduler_input.rescan_at_s else Wait(scheduler_input.rescan_at_s)


def ends_pause(
    scheduler_input: SchedulerInput, now_s: float, least_until_s: float, quiet_s: float, max_wait_s: float
) -> float | None:
    """When a newer change may end the waiting-out of a failure where no server answered; None: it may not.

    A burst must be over, and a least wait too: someone who types all day offline must not start a storm.
    """
    if scheduler_input.burst is None:
        return None
    due = max(least_until_s, due_s(scheduler_input.burst, quiet_s, max_wait_s))
    return max(due, now_s)


def idle_state(scheduler_input: SchedulerInput) -> State:
    """What the daemon is doing while it waits for its next move."""
    if scheduler_input.paused:
        return State.PAUSED
    if scheduler_input.hold is not None:
        return State.HELD
    if scheduler_input.not_before_s is not None:
        return State.RETRYING
    return State.WATCHING if scheduler_input.burst is None else State.DEBOUNCING
