"""The daemon's loop: one thread that owns all state, waits for whatever comes first, and syncs when it is time.

What to do next is decided in `policy.agenda`; this only keeps what the decision rests on. The loop is also the
`Attendant` of its own syncs, whose stages become the status, and the `Listener` of all that waits in them: signals,
commands and changes are heard at once while a sync is under way.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from enum import Enum
from math import inf

from syncd import __version__
from syncd.archive.snapshotter import Demand
from syncd.core.errors import NeedsPerson, Stop, SyncdError, TryLater, WorkspaceError
from syncd.core.waiter import GLANCE_S, GivesWay, Superseded
from syncd.daemon import requests
from syncd.daemon.backoff import Setback, ends_a_new_daemon
from syncd.daemon.components import Parts
from syncd.daemon.control import Client, Message
from syncd.daemon.requests import Order, Orders
from syncd.daemon.scheduler import Agenda, Sync, ends_pause, next_move, resting_state
from syncd.remote.failure import StepFailed
from syncd.remote.failure_action import Step, Verdict
from syncd.report.logs import place_of
from syncd.sync.status_document import State
from syncd.sync.sync_cycle import Outcome
from syncd.sync.sync_reason import SyncReason
from syncd.watch.debounce import Burst, due_s, noted
from syncd.watch.dirty_directories import Suspicion

_log = logging.getLogger("syncd")

# Where no event can come, a look every so often: never more than a twentieth of the time, never more often than this.
POLL_LEAST_S = 2.0
POLL_SHARE = 20
# While the key is refused, its file is looked at this often.
KEY_POLL_S = 2.0


class Ended(Enum):
    """Why the loop ended."""

    STOPPED = "asked to stop"
    RELOAD = "a new configuration is to be read"


class Daemon:
    """One workspace's daemon."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._board = parts.board
        self._clock = parts.clock
        self._orders = Orders()
        self._serving: list[Order] = []
        self._burst: Burst | None = None
        self._setback = Setback(parts.patience)
        self._started_s = 0.0
        self._rescan_at_s = 0.0
        self._suspicion = Suspicion()
        self._paused = False
        self._told_s = 0.0
        self._slept_s = 0.0
        self._woke = False
        self._key_stamp = parts.key_stamp()
        parts.waiter.listener = self

    def run(self) -> Ended:
        """Until asked to stop or reload. Raises `NeedsPerson` where it cannot work and has never worked."""
        self._paused = self._parts.pause_file.paused
        cycle = self._parts.cycle
        self._board.pending = cycle.baseline is None or cycle.journal.unsure or bool(cycle.torn)
        self._board.learn(self._parts.cycle, self._parts.liaison.servers)
        self._board.enter(State.STARTING)
        self._rescan_at_s = self._clock.monotonic_s()  # what changed while nothing ran
        self._parts.manager.ready()
        _log.info("watching %s", self._board.workspace)
        try:
            while not self._parts.signals.reload:
                move = next_move(self._agenda(), self._clock.monotonic_s(), *self._times())
                if isinstance(move, Sync):
                    self._sync(move.reason)
                else:
                    self._rest(move.until_s)
        except Stop:
            _log.info("stopping")
            self._parts.manager.stopping()
            return Ended.STOPPED
        else:
            self._parts.manager.reloading()
            return Ended.RELOAD
        finally:
            # Whatever ended it: what is not in the sandbox yet is said, and no plan outlives the process.
            self._board.pending = self._board.pending or self._burst is not None
            self._board.chronicle.stopped()
            self._board.enter(State.STOPPED)

    # -- one sync

    def _sync(self, reason: SyncReason) -> None:
        burst, self._burst = self._burst, None  # before the scan: what comes from now on is a burst of its own
        self._serving = self._orders.taken()
        if reason is not SyncReason.RESCAN and self._setback.hold is None:
            self._board.pending = True
        changed, written = self._suspicion.taken(), self._suspicion.taken_files()
        if reason is not SyncReason.CHANGE or self._serving or self._parts.watch.needs_polling:
            changed = written = None  # what was saved a moment before an order may not have been heard of yet
        self._parts.cycle.disbelieve(written)
        self._started_s = self._clock.monotonic_s()
        self._board.chronicle.begin(reason.value)
        try:
            outcome = self._parts.cycle.run(requests.demanded(self._serving), self, changed)
        except Superseded:
            self._board.chronicle.gave_way()
            self._orders.put_back(self._serving)
            self._serving = []
            self._burst = self._burst or burst or noted(None, self._started_s)
            self._suspicion.anywhere()
        except StepFailed as failure:
            self._failed(failure.step, failure.as_error(), failure.retry_after_s or 0.0)
        except SyncdError as failure:
            self._failed(Step.WATCH if isinstance(failure, WorkspaceError) else Step.SNAPSHOT, failure)
        except OSError as failure:
            self._failed(Step.SNAPSHOT, TryLater(f"this machine refused something: {failure.strerror or failure}"))
        except Exception as failure:  # noqa: BLE001 - a daemon's last resort
            # A defect must not end weeks of service: said once, then tried again like any failure.
            self._failed(Step.SNAPSHOT, TryLater(f"internal error ({place_of(failure)})", "please report it"))
        else:
            self._succeeded(outcome)
        if changed is None:
            self._look_again_later(self._clock.monotonic_s() - self._started_s)
        self._board.learn(self._parts.cycle, self._parts.liaison.servers)
        self._warn()
        self._parts.manager.ping()

    def _warn(self) -> None:
        parts = self._parts
        self._board.warn([*parts.cycle.problems, *parts.watch.problems(), *parts.liaison.problems])

    def _succeeded(self, outcome: Outcome) -> None:
        self._board.succeeded(outcome)
        self._setback.clear()
        self._orders.lasting += requests.tell_outcome(self._serving, outcome)
        self._serving = []
        if outcome.follow_up:
            self._look_everywhere()
        self._board.pending = self._burst is not None
        self._parts.liaison.arrived(
            self._parts.cycle.target, self._parts.cycle.lodging.tenancy
        )  # last: it may take a moment

    def _failed(self, step: Step, failure: SyncdError, asked_s: float = 0.0) -> None:
        board = self._board
        last = board.tally.last_error
        ends = ends_a_new_daemon(failure) and not board.tally.synced_once
        if not ends and (last is None or last.message != str(failure)):  # what ends it is its last word, said by others
            _log.log(logging.ERROR if isinstance(failure, NeedsPerson) else logging.WARNING, "%s", failure)
        board.failed(step, failure)
        for_good = isinstance(failure, NeedsPerson)
        self._orders.lasting += requests.tell_failure(self._serving, failure, for_good=for_good)
        self._serving = []
        board.pending = True
        now_s = self._clock.monotonic_s()
        if ends:
            raise failure
        self._setback.after(failure, now_s, now_s - self._started_s, asked_s)
        self._suspicion.anywhere()

    def _look_everywhere(self) -> None:
        """As after a change, but one that nothing is known of."""
        self._burst = noted(self._burst, self._clock.monotonic_s())
        self._suspicion.anywhere()

    def _look_again_later(self, took_s: float) -> None:
        wait_s = self._parts.timing.rescan_s
        if self._parts.watch.needs_polling:
            wait_s = min(wait_s, max(POLL_LEAST_S, POLL_SHARE * took_s))
        self._rescan_at_s = self._clock.monotonic_s() + wait_s

    # -- the attendant of a sync

    def stage(self, state: State) -> None:
        """Show it, but for the looks of a hold."""
        self._parts.manager.ping()
        if state is not State.SNAPSHOTTING:
            self._board.pending = True
            self._board.learn(self._parts.cycle, self._parts.liaison.servers)
        elif self._setback.hold is not None:
            return
        self._board.enter(state)
        requests.tell_progress(self._serving, state=state)

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> None:
        """Show it."""
        if self._board.packed(done_files, total_files, done_bytes, total_bytes):
            what = {"done_files": done_files, "total_files": total_files}
            requests.tell_progress(self._serving, done_bytes=done_bytes, total_bytes=total_bytes, **what)

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        """Show it."""
        self._board.sent(sent_bytes, total_bytes)
        now_s = self._clock.monotonic_s()
        if now_s - self._told_s >= GLANCE_S or sent_bytes == total_bytes:
            self._told_s = now_s
            requests.tell_progress(self._serving, done_bytes=sent_bytes, total_bytes=total_bytes)

    def retrying(self, failure: StepFailed, wait_s: float) -> None:
        """Show what failed and when it is tried again."""
        if wait_s == 0:
            _log.info("%s; asking for a fresh upload URL", failure)
            return
        _log.warning("%s; trying again in %.1f s", failure, wait_s)
        requests.tell_progress(self._serving, failed=f"{failure}; trying again in {wait_s:.1f} s")
        self._board.retrying(failure.step, str(failure))
        self._board.retry_in(wait_s)

    def pause(self, wait_s: float, verdict: Verdict) -> None:
        """Wait a failure out, asleep or awake; a newer change means a fresh snapshot, an order at once."""
        started_s = self._clock.monotonic_s()
        slept_before_s = self._slept_s
        least_s = started_s + min(wait_s, self._parts.patience.first_s)
        while True:
            if self._is_called_off:
                raise Superseded
            now_s = self._clock.monotonic_s()
            until_s = ends_s = started_s + wait_s - (self._slept_s - slept_before_s)
            if verdict is Verdict.OFFLINE:
                cut_s = ends_pause(self._agenda(), now_s, least_s, *self._times())
                until_s = ends_s if cut_s is None else min(ends_s, cut_s)
            if now_s >= until_s:
                break
            self._board.retry_in(until_s - now_s)
            self._wait(until_s)
        if self._burst is not None:
            raise Superseded

    # -- waiting

    def _rest(self, until_s: float | None) -> None:
        """Nothing to do: show what is waited for, and wait."""
        board = self._board
        state = resting_state(self._agenda())
        board.pending = board.pending or self._burst is not None
        if state is State.RETRYING and until_s is not None:
            board.retry_in(until_s - self._clock.monotonic_s())
        else:
            board.enter(state)
        self._wait(until_s)

    def _wait(self, until_s: float | None) -> None:
        """Wait for whatever comes first: the time, a change, a signal, a command, the end of a sleep."""
        self._parts.waiter.once(until_s)

    # -- the listener, in each wait: between two syncs, and in them

    def alarms(self) -> list[tuple[int, int]]:
        """What tells that something has come."""
        return self._parts.alarms()

    def due_s(self) -> float | None:
        """When something is due, whatever comes."""
        ends = self._parts.appointments()
        if self._setback.waits_for_person:
            ends.append(self._clock.monotonic_s() + KEY_POLL_S)
        return min(ends) if ends else None

    def hear(self, ready: Collection[int]) -> None:
        """Note what has come, and answer who asks. In the middle of a sync no more than that is done."""
        if not set(self._parts.mounts.filenos()).isdisjoint(ready) and self._parts.mounts.changed():
            _log.info("something was mounted or unmounted at the workspace: looking at everything again")
            self._look_everywhere()
        self._hear()

    def newer_s(self, gives_way: GivesWay) -> float | None:
        """When the sync under way is to give way to another one."""
        if gives_way is GivesWay.TO_A_FRESH_START:
            # After a sleep its connection is dead, and the workspace may be another one.
            woke, self._woke = self._woke, False
            return self._clock.monotonic_s() if woke or self._parts.revision.ends_upload() else None
        if self._is_called_off:
            return self._clock.monotonic_s()
        return None if self._burst is None else due_s(self._burst, *self._times())

    @property
    def _is_called_off(self) -> bool:
        """Whether someone wants another sync than this one, or none."""
        # An order goes before a pause: given up for it, it would be begun again at once, without end.
        held_up = self._paused and not self._serving
        return bool(self._orders.fresh) or held_up or self._parts.signals.reload

    def _hear(self) -> None:
        """Note what has come."""
        parts = self._parts
        parts.wakeup.drain()  # before the hints are taken, or a ring between the two would be lost
        hints = parts.watch.take()
        self._suspicion.heard(hints)
        if hints:
            self._burst = noted(self._burst, self._clock.monotonic_s())
        slept_s = parts.sensor.slept_s()
        self._woke = bool(slept_s)
        if slept_s:
            _log.info("slept for %.0f s: looking at everything again", slept_s)
            parts.exchanger.drop()
            self._look_everywhere()
            self._setback.woke(slept_s)
            self._slept_s += slept_s
        parts.exchanger.drop_cold()
        if parts.signals.sync_now:
            parts.signals.sync_now = False
            self._orders.add(Order())
        for client, message in parts.control.requests():
            self._obey(client, message)
        if self._setback.waits_for_person:
            parts.signals.reload = parts.signals.reload or parts.key_stamp() != self._key_stamp
        self._board.look()
        if parts.liaison.look():
            self._warn()
            self._board.show()
        parts.manager.ping()

    def _obey(self, client: Client, message: Message) -> None:
        match message.get("do"):
            case "push":
                self._orders.add(Order(client, Demand.FORCED if message.get("force") else Demand.CHANGED))
            case "flush" if self._paused:
                client.done(TryLater.exit_code, str(requests.PAUSED))
            case "flush":
                self._orders.add(Order(client, lasting=True))
            case "hello":
                client.done(0, result={"version": __version__})
            case "left":
                self._leave(str(message.get("sandbox")))
                client.done(0)
            case "pause" | "resume" as word:
                self._pause_or_resume(client, word)
            case _:
                client.done(2, "this daemon does not know that command: is it of another version?")

    def _leave(self, sandbox_id: str) -> None:
        """Someone released it: an idle daemon would not ask, and never hear of that."""
        target = self._parts.cycle.target
        if target is not None and target.sandbox_id == sandbox_id and self._parts.cycle.lodging.lost(target):
            self._look_everywhere()

    def _pause_or_resume(self, client: Client, word: str) -> None:
        try:
            self._parts.pause_file.set(paused=word == "pause")
        except OSError as failure:
            client.done(TryLater.exit_code, f"the state folder cannot be written: {failure.strerror}")
            return
        if self._paused and word == "resume":
            self._look_everywhere()
        self._paused = word == "pause"
        if self._paused:
            self._orders.turn_away(requests.PAUSED)
        _log.info("%sd", word)
        client.done(0)

    def _agenda(self) -> Agenda:
        moves_in_s = self._parts.cycle.moves_in_s
        moves_at_s = inf if moves_in_s is None else self._clock.monotonic_s() + moves_in_s
        return Agenda(
            burst=self._burst,
            ordered=bool(self._orders.fresh),
            paused=self._paused,
            hold=self._setback.hold,
            not_before_s=self._setback.not_before_s,
            rescan_at_s=min(self._rescan_at_s, moves_at_s),
        )

    def _times(self) -> tuple[float, float]:
        return self._parts.timing.quiet_s, self._parts.timing.max_wait_s
