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
from syncd.core.waiter import Event, NewerEvents
from syncd.remote.failure import RetrySettings, delay_s
from syncd.sync.outcome import SyncReason
from syncd.sync.status_document import State
from syncd.watch.changes import Burst, due_s, extend, joined

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


class RetryEnds(Enum):
    """The event that ends the wait after a failed sync, besides its time."""

    BY_ITSELF = "it may pass by itself: nothing else ends the wait"
    WITH_CHANGES = "the workspace itself is wrong: check again when it changes"
    WITH_A_PERSON = "the key or the sandbox is refused: a change in the workspace does not help"


class Retry(Struct, frozen=True):
    """The next try of a sync that failed: at that time, or when the event comes. A hold waits for more than time."""

    ends: RetryEnds
    at_s: float
    failures: int = 1  # that ended so, in a row
    asked_until_s: float | None = None  # by a server, which is not to be asked before

    @property
    def is_hold(self) -> bool:
        return self.ends is not RetryEnds.BY_ITSELF

    def woken(self, slept_s: float) -> Retry | None:
        """Return it as of after a sleep, which ends a back-off, but not what a server asked for: its clock went on."""
        if self.is_hold:
            return self
        if self.asked_until_s is None:
            return None
        until_s = self.asked_until_s - slept_s
        return Retry(self.ends, until_s, failures=0, asked_until_s=until_s)


def retry_after(
    failure: SyncdError,
    before: Retry | None,
    retry_settings: RetrySettings,
    now_s: float,
    *,
    took_s: float,
    chance: float,
    asked_s: float = 0.0,
) -> Retry:
    """Return the next try after a sync that took so long failed now; `before` is the last one, if that failed too.

    The server asked for a wait of `asked_s`; `chance` is a random number from 0 to 1, as `delay_s` takes it.
    """
    ends = RetryEnds.BY_ITSELF
    if isinstance(failure, NeedsPerson):
        is_local = isinstance(failure, WorkspaceError | SnapshotTooLarge)
        ends = RetryEnds.WITH_CHANGES if is_local else RetryEnds.WITH_A_PERSON
    failures = before.failures + 1 if before is not None and before.ends is ends else 1
    if isinstance(failure, WorkspaceError):
        wait_s = max(WORKSPACE_POLL_S, WORKSPACE_POLL_SHARE * took_s)
    elif ends is RetryEnds.BY_ITSELF:
        # What is asked for may be longer than the retries of one sync: the next sync must not come before it either.
        wait_s = delay_s(failures, retry_settings.first_s, retry_settings.max_s, chance, asked_s)
    else:
        wait_s = delay_s(failures, RECHECK_FIRST_S, RECHECK_MAX_S, chance)
    return Retry(ends, now_s + wait_s, failures, now_s + asked_s if asked_s else None)


class Due(Struct, frozen=True):
    """What a sandbox's loop has to do by what it went through, and the times; each event makes another one of it."""

    quiet_s: float
    max_wait_s: float
    burst: Burst | None = None  # of changes that no sync has begun for
    arrived: Burst | None = None  # the syncs that the repository in the sandbox is still to follow
    retry: Retry | None = None  # as the last sync failed
    rescan_at_s: float = inf  # as something is to be tried there again
    starting: bool = False  # no sync has begun yet

    @property
    def changes_at_s(self) -> float:
        """The second at which the changes are synced if no further one comes; infinity without any."""
        return inf if self.burst is None else due_s(self.burst, self.quiet_s, self.max_wait_s)

    @property
    def follow_at_s(self) -> float:
        """The second at which the repository follows what arrived, if nothing changes before; infinity without any."""
        return inf if self.arrived is None else due_s(self.arrived, FOLLOW_QUIET_S, FOLLOW_MAX_WAIT_S)

    @property
    def is_held(self) -> bool:
        """True if nothing is sent before a person acts, or the workspace is another."""
        return self.retry is not None and self.retry.is_hold

    @property
    def awaits_person(self) -> bool:
        """True if only a person can end the hold, by a new key or configuration."""
        return self.retry is not None and self.retry.ends is RetryEnds.WITH_A_PERSON

    def with_change(self, now_s: float) -> Due:
        """Return it with one more change, at this time."""
        return replace(self, burst=extend(self.burst, now_s))

    def begun(self) -> Due:
        """Return it as a sync begins: what comes from now on is a burst of its own."""
        return replace(self, burst=None, starting=False)

    def given_way(self, burst: Burst) -> Due:
        """Return it after a sync for these changes gave way: another one is for them, and for those since."""
        return replace(self, burst=joined(burst, self.burst))

    def synced(self, now_s: float) -> Due:
        """Return it with one more sync that succeeded, at this time."""
        return replace(self, arrived=extend(self.arrived, now_s), retry=None)

    def woken(self, slept_s: float, now_s: float) -> Due:
        """Return it after a sleep of the machine: anything may have changed, and a back-off is over."""
        retry = None if self.retry is None else self.retry.woken(slept_s)
        return replace(self.with_change(now_s), retry=retry)


class Facts(Struct, frozen=True):
    """What others have a sandbox's loop do, or leave, as of now."""

    requested: bool = False  # a sync
    paused: bool = False  # by a person
    has_writer: bool = False  # a command of ours writes to the workspace, or waits for that
    reloads: bool = False  # the loop is to end, for another configuration
    slept: bool = False  # the machine, since the stage of the sync began
    rescan_at_s: float = inf  # as others are not sure that nothing changed
    save_at_s: float = inf  # the agent's work is to be saved then, as its sandbox ends


class Step(Enum):
    """What is done beside the syncs."""

    SAVE = "save the agent's work, as its sandbox ends"
    FOLLOW = "have the repository in the sandbox follow what was sent"


class Wait(Struct, frozen=True):
    """Do nothing until then (infinity: no limit), unless something happens; meanwhile the daemon's state is this."""

    until_s: float
    state: State


# A sync for that reason, another step, or nothing, until then.
Action = SyncReason | Step | Wait


def next_action(due: Due, facts: Facts, now_s: float) -> Action:
    """Do something now, or wait until then."""
    if facts.save_at_s <= now_s:
        return Step.SAVE
    state, at_s, action = _planned(due, facts)
    if facts.requested:
        at_s, action = now_s, SyncReason.ORDER
    if facts.has_writer:
        at_s = inf
    return action if at_s <= now_s else Wait(min(at_s, facts.save_at_s), state)


def _planned(due: Due, facts: Facts) -> tuple[State, float, SyncReason | Step]:
    """Return what is done next if nothing happens before, when that is, and the daemon's state until then."""
    if facts.paused:
        return State.PAUSED, inf, SyncReason.ORDER
    if due.retry is not None:
        ends_with_changes = due.retry.ends is RetryEnds.WITH_CHANGES
        at_s = min(due.retry.at_s, due.changes_at_s) if ends_with_changes else due.retry.at_s
        return State.HELD if due.retry.is_hold else State.RETRYING, at_s, SyncReason.RETRY
    if due.burst is not None:
        return State.DEBOUNCING, due.changes_at_s, SyncReason.CHANGE
    # What changed while nothing ran is not known before the first scan.
    state = State.STARTING if due.starting else State.WATCHING
    rescan_at_s = min(due.rescan_at_s, facts.rescan_at_s)
    if rescan_at_s <= due.follow_at_s:
        return state, rescan_at_s, SyncReason.START if due.starting else SyncReason.RESCAN
    return state, due.follow_at_s, Step.FOLLOW


def newer_events(due: Due, facts: Facts, now_s: float) -> NewerEvents:
    """Return the second of each event that has come, or will, while something is done."""
    came = {
        Event.SUSPEND: facts.slept,
        Event.RELOAD: facts.reloads,
        Event.REQUEST: facts.requested,
        Event.PAUSE: facts.paused,
        Event.WRITER: facts.has_writer,
    }
    newer = {event: now_s for event, has_come in came.items() if has_come}
    return newer | {Event.SAVE: facts.save_at_s, Event.CHANGE: due.changes_at_s}


def retry_at_s(wait_ends_s: float, least_ends_s: float, changes_at_s: float) -> float:
    """Return the time at which a wait in the middle of a sync, after a failed attempt, ends.

    Changes that are due end it, but not before `least_ends_s`: typing all day while offline must not cause a storm of
    attempts.
    """
    return min(wait_ends_s, max(least_ends_s, changes_at_s))


def ends_a_new_daemon(failure: SyncdError) -> bool:
    """True if a daemon that has never synced ends with this failure, rather than hold and wait.

    An accident to the workspace may pass by itself, and so may one large file; a wrong key or path at the start does
    not.
    """
    return isinstance(failure, NeedsPerson) and not isinstance(failure, NearlyEmpty | SnapshotTooLarge)
