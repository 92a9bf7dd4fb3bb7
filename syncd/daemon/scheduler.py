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


class Ends(Enum):
    """What may end a hold early."""

    WITH_CHANGES = "the workspace itself is wrong: look again when it changes"
    WITH_A_PERSON = "key or sandbox are refused: changes at home do not mend that"


@dataclass(frozen=True)
class Hold:
    """Why nothing is synced, and when to look again by itself."""

    ends: Ends
    look_at_s: float


@dataclass(frozen=True)
class Agenda:
    """All that the decision rests on."""

    burst: Burst | None = None
    ordered: bool = False
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


def next_move(agenda: Agenda, now_s: float, quiet_s: float, max_wait_s: float) -> Sync | Wait:
    """Whether to sync now, and why, or until when to wait."""
    if agenda.ordered:
        return Sync(SyncReason.ORDER)
    if agenda.paused:
        return Wait(None)
    if agenda.hold is not None:
        due = agenda.hold.look_at_s
        if agenda.burst is not None and agenda.hold.ends is Ends.WITH_CHANGES:
            due = min(due, due_s(agenda.burst, quiet_s, max_wait_s))
        return Sync(SyncReason.RETRY) if now_s >= due else Wait(due)
    if agenda.not_before_s is not None:
        return Sync(SyncReason.RETRY) if now_s >= agenda.not_before_s else Wait(agenda.not_before_s)
    if agenda.burst is not None:
        due = due_s(agenda.burst, quiet_s, max_wait_s)
        return Sync(SyncReason.CHANGE) if now_s >= due else Wait(due)
    return Sync(SyncReason.RESCAN) if now_s >= agenda.rescan_at_s else Wait(agenda.rescan_at_s)


def ends_pause(agenda: Agenda, now_s: float, least_until_s: float, quiet_s: float, max_wait_s: float) -> float | None:
    """When a newer change may end the waiting-out of a failure where no server answered; None: it may not.

    A burst must be over, and a least wait too: someone who types all day offline must not start a storm.
    """
    if agenda.burst is None:
        return None
    due = max(least_until_s, due_s(agenda.burst, quiet_s, max_wait_s))
    return max(due, now_s)


def resting_state(agenda: Agenda) -> State:
    """What the daemon is doing while it waits for its next move."""
    if agenda.paused:
        return State.PAUSED
    if agenda.hold is not None:
        return State.HELD
    if agenda.not_before_s is not None:
        return State.RETRYING
    return State.WATCHING if agenda.burst is None else State.DEBOUNCING
