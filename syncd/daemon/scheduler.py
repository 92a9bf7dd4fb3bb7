"""Decides what the daemon does next, from its state and the time, and how long it waits after a failed sync.

All times are monotonic seconds. A request (push, flush, SIGUSR1) comes before quiet time and back-off. A hold waits for
a person; some holds end when the workspace changes, a refused key does not.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.errors import NearlyEmpty, NeedsPerson, SnapshotTooLarge, SyncdError, WorkspaceError
from syncd.remote.failure import RetrySettings, delay_s
from syncd.sync.outcome import SyncReason
from syncd.sync.status_document import State
from syncd.watch.changes import Burst, due_s, extend

# A workspace that is missing or emptied is checked this often, as a mount gives no event …
WORKSPACE_POLL_S = 2.0
# … but the checks take no more than one part in so many of the time.
WORKSPACE_POLL_SHARE = 20
# A hold for a refused key or sandbox costs the API a request each time that it is checked.
RECHECK_FIRST_S = 60.0
RECHECK_MAX_S = 600.0
# To have the repository in the sandbox follow costs as many requests as a look: it follows a burst of syncs once …
FOLLOW_QUIET_S = 5.0
# … but the agent's git must not take for long what was sent for the agent's work.
FOLLOW_MAX_WAIT_S = 30.0


class HoldEnds(Enum):
    """The event that ends a hold early."""

    WITH_CHANGES = "the workspace itself is wrong: check again when it changes"
    WITH_A_PERSON = "the key or the sandbox is refused: a change in the workspace does not help"


class Hold(Struct, frozen=True):
    """The reason why nothing is synced, and when it is checked again without an event."""

    ends: HoldEnds
    recheck_s: float


class Due(Struct, frozen=True):
    """All that is due for one sandbox, and the times; each event makes another one of it."""

    quiet_s: float
    max_wait_s: float
    burst: Burst | None = None  # of changes that no sync has begun for
    arrived: Burst | None = None  # the syncs that the repository in the sandbox is still to follow
    written_to: bool = False  # a command of ours is writing to the workspace
    requested: bool = False
    paused: bool = False  # by a person
    hold: Hold | None = None
    not_before_s: float | None = None
    rescan_at_s: float = 0.0
    starting: bool = False  # no sync has begun yet
    save_at_s: float = inf  # the agent's work is to be saved then, as its sandbox ends

    @property
    def changes_at_s(self) -> float:
        """The second at which the changes are synced if no further one comes; infinity without any."""
        return inf if self.burst is None else due_s(self.burst, self.quiet_s, self.max_wait_s)

    @property
    def follow_at_s(self) -> float:
        """The second at which the repository follows what arrived, if nothing changes before; infinity without any."""
        return inf if self.arrived is None else due_s(self.arrived, FOLLOW_QUIET_S, FOLLOW_MAX_WAIT_S)

    def changed(self, now_s: float) -> Due:
        """Return it with one more change, at this time."""
        return replace(self, burst=extend(self.burst, now_s))

    def synced(self, now_s: float) -> Due:
        """Return it with one more sync that arrived, at this time."""
        return replace(self, arrived=extend(self.arrived, now_s))


class Sync(Struct, frozen=True):
    """Sync now."""

    reason: SyncReason


class SaveAgentWork(Struct, frozen=True):
    """Save the agent's work now."""


class FollowInRepository(Struct, frozen=True):
    """Have the repository in the sandbox follow what was sent, now."""


class Wait(Struct, frozen=True):
    """Do nothing until then (infinity: no limit), unless something happens."""

    until_s: float


Action = Sync | SaveAgentWork | FollowInRepository | Wait


def next_action(due: Due, now_s: float) -> Action:
    """Do something now, or wait until then."""
    if due.save_at_s <= now_s:
        return SaveAgentWork()
    action = _next_sync(due, now_s)
    return Wait(min(action.until_s, due.save_at_s)) if isinstance(action, Wait) else action


def _next_sync(due: Due, now_s: float) -> Sync | FollowInRepository | Wait:
    if due.written_to:
        return Wait(inf)
    if due.requested:
        return Sync(SyncReason.ORDER)
    if due.paused:
        return Wait(inf)
    if due.hold is not None:
        ends_with_changes = due.hold.ends is HoldEnds.WITH_CHANGES
        again_s = min(due.hold.recheck_s, due.changes_at_s) if ends_with_changes else due.hold.recheck_s
        return Sync(SyncReason.RETRY) if now_s >= again_s else Wait(again_s)
    if due.not_before_s is not None:
        return Sync(SyncReason.RETRY) if now_s >= due.not_before_s else Wait(due.not_before_s)
    if due.burst is not None:
        return Sync(SyncReason.CHANGE) if now_s >= due.changes_at_s else Wait(due.changes_at_s)
    if now_s >= due.rescan_at_s:
        return Sync(SyncReason.RESCAN)
    if now_s >= due.follow_at_s:
        return FollowInRepository()
    return Wait(min(due.rescan_at_s, due.follow_at_s))


def retry_at_s(wait_ends_s: float, least_ends_s: float, changes_at_s: float) -> float:
    """Return the time at which a wait in the middle of a sync, after a failed attempt, ends.

    Changes that are due end it, but not before `least_ends_s`: typing all day while offline must not cause a storm of
    attempts.
    """
    return min(wait_ends_s, max(least_ends_s, changes_at_s))


def idle_state(due: Due) -> State:
    """The state of the daemon while it waits for its next action."""
    if due.paused:
        return State.PAUSED
    if due.hold is not None:
        return State.HELD
    if due.not_before_s is not None:
        return State.RETRYING
    if due.burst is not None:
        return State.DEBOUNCING
    # What changed while nothing ran is not known before the first scan.
    return State.STARTING if due.starting else State.WATCHING


class FailureBackoff:
    """The daemon's hold or back-off, if it has one. Times are monotonic seconds; a back-off ends at `not_before_s`."""

    def __init__(self, retry_settings: RetrySettings) -> None:
        self._retry_settings = retry_settings
        self._failures = 0
        self._rechecks = 0
        self._server_until_s: float | None = None
        self.hold: Hold | None = None
        self.not_before_s: float | None = None

    def clear(self) -> None:
        """A sync succeeded."""
        self._rechecks = 0
        self.hold = None
        self._end_wait()

    def woke(self, slept_s: float) -> None:
        """End the back-off after a sleep, but not the wait that a server asked for: its clock went on."""
        if self._server_until_s is not None:
            self._server_until_s -= slept_s
        was_waiting = self.not_before_s is not None
        self._end_wait()
        if was_waiting:
            self.not_before_s = self._server_until_s

    def _end_wait(self) -> None:
        """Begin anew: the next wait is as the first."""
        self._failures = 0
        self.not_before_s = None

    def after(self, failure: SyncdError, now_s: float, took_s: float, chance: float, asked_s: float = 0.0) -> None:
        """A sync that took so long failed now; the server asked for a wait of `asked_s`.

        `chance` is a random number from 0 to 1, as `delay_s` takes it.
        """
        self.hold, self.not_before_s, self._server_until_s = None, None, None
        if isinstance(failure, NeedsPerson):
            self.hold = self._held(failure, now_s, took_s, chance)
            return
        self._failures += 1
        # What is asked for may be longer than the retries of one sync: the next sync must not come before it either.
        wait_s = delay_s(self._failures, self._retry_settings.first_s, self._retry_settings.max_s, chance, asked_s)
        self.not_before_s = now_s + wait_s
        self._server_until_s = now_s + asked_s if asked_s else None

    def _held(self, failure: NeedsPerson, now_s: float, took_s: float, chance: float) -> Hold:
        if isinstance(failure, WorkspaceError):
            return Hold(HoldEnds.WITH_CHANGES, now_s + max(WORKSPACE_POLL_S, WORKSPACE_POLL_SHARE * took_s))
        self._rechecks += 1
        recheck_s = now_s + delay_s(self._rechecks, RECHECK_FIRST_S, RECHECK_MAX_S, chance)
        return Hold(
            HoldEnds.WITH_CHANGES if isinstance(failure, SnapshotTooLarge) else HoldEnds.WITH_A_PERSON, recheck_s
        )

    @property
    def waits_for_person(self) -> bool:
        """True if only a person can end the hold, by a new key or configuration."""
        return self.hold is not None and self.hold.ends is HoldEnds.WITH_A_PERSON


def ends_a_new_daemon(failure: SyncdError) -> bool:
    """True if a daemon that has never synced ends with this failure, rather than hold and wait.

    An accident to the workspace may pass by itself, and so may one large file; a wrong key or path at the start does
    not.
    """
    return isinstance(failure, NeedsPerson) and not isinstance(failure, NearlyEmpty | SnapshotTooLarge)
