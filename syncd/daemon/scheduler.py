"""Decides what the daemon does next, from its state and the time, and how long it waits after a failed sync.

All times are monotonic seconds. A request (push, flush, SIGUSR1) comes before quiet time and back-off. A hold waits for
a person; some holds end when the workspace changes, a refused key does not.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from msgspec import Struct

from syncd.core.errors import NearlyEmpty, NeedsPerson, SnapshotTooLarge, SyncdError, Unavailable, WorkspaceError
from syncd.remote.failure import RetrySettings, delay_s
from syncd.sync.outcome import SyncReason
from syncd.sync.status_document import State
from syncd.watch.changes import Burst, due_s

# A workspace that is missing or emptied is checked this often, as a mount gives no event …
WORKSPACE_POLL_S = 2.0
# … but the checks take no more than one part in so many of the time.
WORKSPACE_POLL_SHARE = 20
# A hold for a refused key or sandbox costs the API a request each time that it is checked.
RECHECK_FIRST_S = 60.0
RECHECK_MAX_S = 600.0
# An outage that has lasted so long is hardly over in the next minute, and nobody waits for its end …
LONG_OUTAGE_S = 120.0
# … so the longest wait is so many times as long then, unless something changes, a person asks, or the network returns.
# With the default it is short enough for everybody to be in sync again three minutes after the outage.
LONG_OUTAGE_WAITS = 2.5
# After an outage of so long many laptops send at once what changed meanwhile …
CROWD_OUTAGE_S = 20.0
# … so what can wait comes so long after that, at random.
_AFTER_CROWD_S, _AFTER_CROWD_SPREAD_S = 60.0, 120.0


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

    def ends_s(self, slept_s: float, network_back_s: float, changes_due_s: float | None) -> float:
        """Return the time at which it ends, where the machine slept for so long, and the network returned last then.

        Changes must be due, and a least wait be over: typing all day while offline must not cause a storm of attempts.
        """
        network_is_back = network_back_s >= self.started_s
        ends_s = self.started_s + (self.wait_s if slept_s or network_is_back else self.longest_s) - slept_s
        if self.is_offline and network_is_back:
            ends_s = min(ends_s, network_back_s + self.first_s)
        if changes_due_s is not None:
            least_s = self.started_s + (min(self.wait_s, self.first_s) if self.is_offline else self.wait_s)
            ends_s = min(ends_s, max(least_s, changes_due_s))
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


class FailureBackoff:
    """The daemon's hold or back-off, if it has one. Times are monotonic seconds.

    A back-off ends at `not_before_s`, and for changes at `changes_not_before_s`, which is earlier in a long outage.
    """

    def __init__(self, retry_settings: RetrySettings) -> None:
        self._retry_settings = retry_settings
        self._failures = 0
        self._rechecks = 0
        self._server_until_s: float | None = None
        self._outage_since_s: float | None = None
        self.hold: Hold | None = None
        self.not_before_s: float | None = None
        self.changes_not_before_s: float | None = None

    @property
    def is_outage(self) -> bool:
        """True if the API or the bucket failed last."""
        return self._outage_since_s is not None

    def note_outage(self, now_s: float) -> None:
        """The API or the bucket failed, in the middle of a sync too."""
        if self._outage_since_s is None:
            self._outage_since_s = now_s

    def outage_wait_s(self, wait_s: float, now_s: float, chance: float) -> float:
        """Return the wait that begins now, where `wait_s` is that of a short outage.

        `chance` is a random number from 0 to 1, as `delay_s` takes it.
        """
        longest_s = LONG_OUTAGE_WAITS * self._retry_settings.max_s
        is_long = self._lasts_s(now_s) >= LONG_OUTAGE_S
        return max(wait_s, delay_s(1, longest_s, longest_s, chance)) if is_long else wait_s

    def _lasts_s(self, now_s: float) -> float:
        return 0.0 if self._outage_since_s is None else now_s - self._outage_since_s

    def follow_at_s(self, now_s: float, chance: float) -> float:
        """Return when the repository in the sandbox follows a sync that succeeds now.

        Following costs nearly as many requests as the sync, and after an outage the files of everybody come first.
        """
        is_crowded = self._lasts_s(now_s) >= CROWD_OUTAGE_S
        return now_s + _AFTER_CROWD_S + _AFTER_CROWD_SPREAD_S * chance if is_crowded else now_s

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
            self.not_before_s = self.changes_not_before_s = self._server_until_s

    def network_returned(self, now_s: float) -> None:
        """End the back-off in a moment, as lookups of names take one, but not the wait that a server asked for."""
        was_waiting = self.not_before_s is not None
        self._end_wait()
        if was_waiting:
            soon_s = now_s + self._retry_settings.first_s
            self.not_before_s = self.changes_not_before_s = max(soon_s, self._server_until_s or soon_s)

    def _end_wait(self) -> None:
        """Begin anew: what fails next is the beginning of another outage."""
        self._failures = 0
        self._outage_since_s = None
        self.not_before_s = self.changes_not_before_s = None

    def after(
        self,
        failure: SyncdError,
        now_s: float,
        took_s: float,
        chance: float,
        asked_s: float = 0.0,
        *,
        awaited: bool = False,
    ) -> None:
        """A sync that took so long failed now; the server asked for a wait of `asked_s`. `awaited`: a command waits."""
        self.hold, self.not_before_s, self.changes_not_before_s, self._server_until_s = None, None, None, None
        if isinstance(failure, Unavailable):
            self.note_outage(now_s - took_s)
        else:
            self._outage_since_s = None
        if isinstance(failure, NeedsPerson):
            self.hold = self._held(failure, now_s, took_s, chance)
            return
        self._failures += 1
        # What is asked for may be longer than the retries of one sync: the next sync must not come before it either.
        wait_s = delay_s(self._failures, self._retry_settings.first_s, self._retry_settings.max_s, chance, asked_s)
        self.changes_not_before_s = now_s + wait_s
        self.not_before_s = now_s + (wait_s if awaited else self.outage_wait_s(wait_s, now_s, chance))
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
