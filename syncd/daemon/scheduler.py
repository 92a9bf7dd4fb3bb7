"""Decides what the daemon does next, from its state and the time.

All times are monotonic seconds. A request (push, flush, SIGUSR1) comes before quiet time and back-off. A hold waits for
a person; some holds end when the workspace changes, a refused key does not.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from msgspec import Struct

from syncd.sync.status_document import State
from syncd.sync.sync_reason import SyncReason
from syncd.watch.changes import Burst, due_s


class HoldEnds(Enum):
    """The event that ends a hold early."""

    WITH_CHANGES = "the workspace itself is wrong: check again when it changes"
    WITH_A_PERSON = "the key or the sandbox is refused: a change in the workspace does not help"


class Hold(Struct, frozen=True):
    """The reason why nothing is synced, and when it is checked again without an event."""

    ends: HoldEnds
    recheck_s: float


class SchedulerInput(Struct, frozen=True):
    """The values that the decision rests on."""

    burst: Burst | None = None
    written_to: bool = False  # a command of ours is writing to the workspace
    requested: bool = False
    paused: bool = False  # by a person
    hold: Hold | None = None
    not_before_s: float | None = None
    changes_not_before_s: float | None = None  # the same for changes; None: they end no back-off
    rescan_at_s: float = 0.0
    poll_at_s: float = inf
    starting: bool = False  # no sync has begun yet
    save_at_s: float = inf  # the agent's work is to be saved then, as its sandbox ends


class Sync(Struct, frozen=True):
    """Sync now."""

    reason: SyncReason


class SaveAgentWork(Struct, frozen=True):
    """Save the agent's work now."""


class Wait(Struct, frozen=True):
    """Do nothing until then, unless something happens. None: until something happens."""

    until_s: float | None


def next_action(
    scheduler_input: SchedulerInput, now_s: float, quiet_s: float, max_wait_s: float
) -> Sync | SaveAgentWork | Wait:
    """Sync or save now, or wait until then."""
    if scheduler_input.save_at_s <= now_s:
        return SaveAgentWork()
    action = _next_sync(scheduler_input, now_s, quiet_s, max_wait_s)
    if isinstance(action, Wait) and scheduler_input.save_at_s < inf:
        until_s = inf if action.until_s is None else action.until_s
        return Wait(min(until_s, scheduler_input.save_at_s))
    return action


def _next_sync(scheduler_input: SchedulerInput, now_s: float, quiet_s: float, max_wait_s: float) -> Sync | Wait:
    if scheduler_input.written_to:
        return Wait(None)
    if scheduler_input.requested:
        return Sync(SyncReason.ORDER)
    if scheduler_input.paused:
        return Wait(None)
    if scheduler_input.hold is not None:
        due = scheduler_input.hold.recheck_s
        if scheduler_input.burst is not None and scheduler_input.hold.ends is HoldEnds.WITH_CHANGES:
            due = min(due, due_s(scheduler_input.burst, quiet_s, max_wait_s))
        return Sync(SyncReason.RETRY) if now_s >= due else Wait(due)
    if scheduler_input.not_before_s is not None:
        due = scheduler_input.not_before_s
        if scheduler_input.burst is not None and scheduler_input.changes_not_before_s is not None:
            changes_due = due_s(scheduler_input.burst, quiet_s, max_wait_s)
            due = min(due, max(changes_due, scheduler_input.changes_not_before_s))
        return Sync(SyncReason.RETRY) if now_s >= due else Wait(due)
    if scheduler_input.burst is not None:
        due = due_s(scheduler_input.burst, quiet_s, max_wait_s)
        return Sync(SyncReason.CHANGE) if now_s >= due else Wait(due)
    if now_s >= scheduler_input.rescan_at_s:
        return Sync(SyncReason.RESCAN)
    if now_s >= scheduler_input.poll_at_s:
        return Sync(SyncReason.POLL)
    return Wait(min(scheduler_input.rescan_at_s, scheduler_input.poll_at_s))


class RetryPause(Struct, frozen=True):
    """A wait in the middle of a sync, after a failed attempt.

    It takes `wait_s`, or, in a long outage, `longest_s`. `is_offline`: no server answered, so a newer change and the
    return of the network end it after `first_s`, the shortest wait.
    """

    started_s: float
    wait_s: float
    longest_s: float
    first_s: float
    is_offline: bool


class Passed(Struct, frozen=True):
    """The course of a pause: it is `now_s`, the machine slept for so long, the network returned last then."""

    now_s: float
    slept_s: float = 0.0
    network_back_s: float = -inf


def pause_ends_s(pause: RetryPause, burst: Burst | None, passed: Passed, quiet_s: float, max_wait_s: float) -> float:
    """Return the time at which the pause ends.

    A burst must be over, and a least wait too: typing all day while offline must not cause a storm of attempts.
    """
    network_is_back = passed.network_back_s >= pause.started_s
    wait_s = pause.wait_s if passed.slept_s or network_is_back else pause.longest_s
    ends_s = pause.started_s + wait_s - passed.slept_s
    if pause.is_offline and network_is_back:
        ends_s = min(ends_s, passed.network_back_s + pause.first_s)
    if burst is not None:
        least_s = pause.started_s + (min(pause.wait_s, pause.first_s) if pause.is_offline else pause.wait_s)
        ends_s = min(ends_s, max(least_s, due_s(burst, quiet_s, max_wait_s), passed.now_s))
    return ends_s


def idle_state(scheduler_input: SchedulerInput) -> State:
    """The state of the daemon while it waits for its next action."""
    if scheduler_input.paused:
        return State.PAUSED
    if scheduler_input.hold is not None:
        return State.HELD
    if scheduler_input.not_before_s is not None:
        return State.RETRYING
    if scheduler_input.burst is not None:
        return State.DEBOUNCING
    # What changed while nothing ran is not known before the first scan.
    return State.STARTING if scheduler_input.starting else State.WATCHING
