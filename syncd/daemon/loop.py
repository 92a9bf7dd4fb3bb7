"""The daemon's loop: one thread that owns all state, waits for whatever comes first, and syncs when it is time.

What to do next is decided in `policy.scheduler_input`; this only keeps what the decision rests on. The loop is also the
`SyncObserver` of its own syncs, whose stages become the status, and the `Listener` of all that waits in them: signals,
commands and changes are heard at once while a sync is under way.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from enum import Enum
from math import inf

from syncd import __version__
from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import NeedsPerson, Stop, SyncdError, TryLater, WorkspaceError
from syncd.core.waiter import POLL_EVERY_S, GivesWay, Superseded
from syncd.daemon.backoff import FailureBackoff, ends_a_new_daemon
from syncd.daemon.components import Components
from syncd.daemon.control import Client, Message
from syncd.daemon.requests import PAUSED, RequestQueue, SyncRequest
from syncd.daemon.scheduler import SchedulerInput, Sync, ends_pause, idle_state, next_action
from syncd.remote.failure import StepFailed
from syncd.remote.failure_action import ApiStep, FailureAction
from syncd.report.logs import place_of
from syncd.sync.status_document import State
from syncd.sync.sync_cycle import Outcome
from syncd.sync.sync_reason import SyncReason
from syncd.watch.debounce import Burst, due_s, noted
from syncd.watch.dirty_directories import DirtyDirectories

_log = logging.getLogger("syncd")

# Where no event can come, a look every so often: never more than a twentieth of the time, never more often than this.
POLL_LEAST_S = 2.0
POLL_SHARE = 20
# While the key is refused, its file is looked at this often.
KEY_POLL_S = 2.0
_SYNCING = frozenset({State.SNAPSHOTTING, State.UPLOADING, State.INITIALIZING, State.RETRYING})


class LoopEnd(Enum):
    """Why the loop ended."""

    STOPPED = "asked to stop"
    RELOAD = "a new configuration is to be read"


class Daemon:
    """One workspace's daemon."""

    def __init__(self, components: Components) -> None:
        self._components = components
        self._publisher = components.publisher
        self._clock = components.clock
        self._request_queue = RequestQueue()
        self._burst: Burst | None = None
        self._backoff = FailureBackoff(components.retry_settings)
        self._started_s = 0.0
        self._rescan_at_s = 0.0
        self._dirty = DirtyDirectories()
        self._paused = False
        self._told_s = 0.0
        self._slept_s = 0.0
        self._woke = False
        self._key_stamp = components.key_stamp()
        components.waiter.listener = self

    def run(self) -> LoopEnd:
        """Until asked to stop or reload. Raises `NeedsPerson` where it cannot work and has never worked."""
        self._paused = self._components.pause_file.paused
        cycle = self._components.cycle
        self._publisher.pending = cycle.baseline is None or cycle.sync_state.uncertain or bool(cycle.torn)
        self._publisher.learn(self._components.cycle, self._components.agent_notifier.servers)
        self._publisher.enter(State.STARTING)
        self._rescan_at_s = self._clock.monotonic_s()  # what changed while nothing ran
        self._components.manager.ready()
        _log.info("watching %s", self._publisher.workspace)
        try:
            while not self._components.signals.reload:
                move = next_action(self._scheduler_input(), self._clock.monotonic_s(), *self._times())
                if isinstance(move, Sync):
                    self._sync(move.reason)
                else:
                    self._rest(move.until_s)
        except Stop:
            _log.info("stopping")
            self._components.manager.stopping()
            return LoopEnd.STOPPED
        else:
            self._components.manager.reloading()
            return LoopEnd.RELOAD
        finally:
            # Whatever ended it: what is not in the sandbox yet is said, and no plan outlives the process.
            self._publisher.pending = self._publisher.pending or self._burst is not None
            self._publisher.recorder.stopped()
            self._publisher.enter(State.STOPPED)

    # -- one sync

    def _sync(self, reason: SyncReason) -> None:
        burst, self._burst = self._burst, None  # before the scan: what comes from now on is a burst of its own
        sync_mode = self._request_queue.begin()
        if reason is not SyncReason.RESCAN and self._backoff.hold is None:
            self._publisher.pending = True
        changed, written = self._dirty.taken(), self._dirty.taken_files()
        if reason is not SyncReason.CHANGE or self._request_queue.serving or self._components.watch.needs_polling:
            changed = written = None  # what was saved a moment before an order may not have been heard of yet
        self._components.cycle.disbelieve(written)
        self._started_s = self._clock.monotonic_s()
        self._publisher.recorder.begin(reason.value)
        try:
            outcome = self._components.cycle.run(sync_mode, self, changed)
        except Superseded:
            self._publisher.recorder.gave_way()
            self._request_queue.put_back()
            self._burst = self._burst or burst or noted(None, self._started_s)
            self._dirty.anywhere()
        except StepFailed as failure:
            self._failed(failure.step, failure.as_error(), failure.retry_after_s or 0.0)
        except SyncdError as failure:
            self._failed(ApiStep.WATCH if isinstance(failure, WorkspaceError) else ApiStep.SNAPSHOT, failure)
        except OSError as failure:
            self._failed(ApiStep.SNAPSHOT, TryLater(f"this machine refused something: {failure.strerror or failure}"))
        except Exception as failure:  # noqa: BLE001 - a daemon's last resort
            # A defect must not end weeks of service: said once, then tried again like any failure.
            self._failed(ApiStep.SNAPSHOT, TryLater(f"internal error ({place_of(failure)})", "please report it"))
        else:
            self._succeeded(outcome)
        if changed is None:
            self._look_again_later(self._clock.monotonic_s() - self._started_s)
        self._publisher.learn(self._components.cycle, self._components.agent_notifier.servers)
        self._warn()
        self._components.manager.ping()

    def _warn(self) -> None:
        components = self._components
        self._publisher.warn(
            [*components.cycle.warnings, *components.watch.warnings(), *components.agent_notifier.warnings]
        )

    def _succeeded(self, outcome: Outcome) -> None:
        self._publisher.succeeded(outcome)
        self._backoff.clear()
        self._request_queue.succeeded(outcome)
        if outcome.follow_up:
            self._look_everywhere()
        self._publisher.pending = self._burst is not None
        self._components.agent_notifier.arrived(
            self._components.cycle.target, self._components.cycle.provider.acquired_sandbox
        )  # last: it may take a moment

    def _failed(self, step: ApiStep, failure: SyncdError, asked_s: float = 0.0) -> None:
        publisher = self._publisher
        last = publisher.totals.last_error
        ends = ends_a_new_daemon(failure) and not publisher.totals.synced_once
        if not ends and (last is None or last.message != str(failure)):  # what ends it is its last word, said by others
            _log.log(logging.ERROR if isinstance(failure, NeedsPerson) else logging.WARNING, "%s", failure)
        publisher.failed(step, failure)
        self._request_queue.failed(failure, for_good=isinstance(failure, NeedsPerson))
        publisher.pending = True
        now_s = self._clock.monotonic_s()
        if ends:
            raise failure
        self._backoff.after(failure, now_s, now_s - self._started_s, asked_s)
        if self._backoff.not_before_s is not None:
            self._send_failure(failure, self._backoff.not_before_s - now_s)
        self._dirty.anywhere()

    def _look_everywhere(self) -> None:
        """As after a change, but one that nothing is known of."""
        self._burst = noted(self._burst, self._clock.monotonic_s())
        self._dirty.anywhere()

    def _look_again_later(self, took_s: float) -> None:
        wait_s = self._components.timing.rescan_s
        if self._components.watch.needs_polling:
            wait_s = min(wait_s, max(POLL_LEAST_S, POLL_SHARE * took_s))
        self._rescan_at_s = self._clock.monotonic_s() + wait_s

    # -- the attendant of a sync

    def stage(self, state: State) -> None:
        """Show it, but for the looks of a hold."""
        self._components.manager.ping()
        if state is not State.SNAPSHOTTING:
            self._publisher.pending = True
            self._publisher.learn(self._components.cycle, self._components.agent_notifier.servers)
        elif self._backoff.hold is not None:
            return
        self._publisher.enter(state)
        self._request_queue.send_progress(state=state)

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> None:
        """Show it."""
        if self._publisher.packed(done_files, total_files, done_bytes, total_bytes):
            what = {"done_files": done_files, "total_files": total_files}
            self._request_queue.send_progress(done_bytes=done_bytes, total_bytes=total_bytes, **what)

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        """Show it."""
        self._publisher.sent(sent_bytes, total_bytes)
        now_s = self._clock.monotonic_s()
        if now_s - self._told_s >= POLL_EVERY_S or sent_bytes == total_bytes:
            self._told_s = now_s
            self._request_queue.send_progress(done_bytes=sent_bytes, total_bytes=total_bytes)

    def retrying(self, failure: StepFailed, wait_s: float) -> None:
        """Show what failed and when it is tried again."""
        if wait_s == 0:
            _log.info("%s; asking for a fresh upload URL", failure)
            return
        _log.warning("%s; trying again in %.1f s", failure, wait_s)
        self._send_failure(failure, wait_s)
        self._publisher.retrying(failure.step, str(failure))
        self._publisher.retry_in(wait_s)

    def _send_failure(self, failure: Exception, wait_s: float) -> None:
        self._request_queue.send_progress(failed=f"{failure}; trying again in {wait_s:.1f} s")
        self._request_queue.send_progress(state=State.RETRYING)

    def pause(self, wait_s: float, action: FailureAction) -> None:
        """Wait a failure out, asleep or awake; a newer change means a fresh snapshot, an order at once."""
        started_s = self._clock.monotonic_s()
        slept_before_s = self._slept_s
        least_s = started_s + min(wait_s, self._components.retry_settings.first_s)
        while True:
            if self._is_called_off:
                raise Superseded
            now_s = self._clock.monotonic_s()
            until_s = ends_s = started_s + wait_s - (self._slept_s - slept_before_s)
            if action is FailureAction.OFFLINE:
                cut_s = ends_pause(self._scheduler_input(), now_s, least_s, *self._times())
                until_s = ends_s if cut_s is None else min(ends_s, cut_s)
            if now_s >= until_s:
                break
            self._publisher.retry_in(until_s - now_s)
            self._wait(until_s)
        if self._burst is not None:
            raise Superseded

    # -- waiting

    def _rest(self, until_s: float | None) -> None:
        """Nothing to do: show what is waited for, and wait."""
        publisher = self._publisher
        state = idle_state(self._scheduler_input())
        publisher.pending = publisher.pending or self._burst is not None
        if state is State.RETRYING and until_s is not None:
            publisher.retry_in(until_s - self._clock.monotonic_s())
        else:
            publisher.enter(state)
        self._wait(until_s)

    def _wait(self, until_s: float | None) -> None:
        """Wait for whatever comes first: the time, a change, a signal, a command, the end of a sleep."""
        self._components.waiter.once(until_s)

    # -- the listener, in each wait: between two syncs, and in them

    def wake_fds(self) -> list[tuple[int, int]]:
        """What tells that something has come."""
        return self._components.wake_fds()

    def due_s(self) -> float | None:
        """When something is due, whatever comes."""
        ends = self._components.deadlines()
        if self._backoff.waits_for_person:
            ends.append(self._clock.monotonic_s() + KEY_POLL_S)
        return min(ends) if ends else None

    def hear(self, ready: Collection[int]) -> None:
        """Note what has come, and answer who asks. In the middle of a sync no more than that is done."""
        if not set(self._components.mounts.filenos()).isdisjoint(ready) and self._components.mounts.changed():
            _log.info("something was mounted or unmounted at the workspace: looking at everything again")
            self._look_everywhere()
        self._hear()

    def newer_s(self, gives_way: GivesWay) -> float | None:
        """When the sync under way is to give way to another one."""
        if gives_way is GivesWay.TO_A_FRESH_START:
            # After a sleep its connection is dead, and the workspace may be another one.
            woke, self._woke = self._woke, False
            return self._clock.monotonic_s() if woke or self._components.revision.ends_upload() else None
        if self._is_called_off:
            return self._clock.monotonic_s()
        return None if self._burst is None else due_s(self._burst, *self._times())

    @property
    def _is_called_off(self) -> bool:
        """Whether someone wants another sync than this one, or none."""
        # An order goes before a pause: given up for it, it would be begun again at once, without end.
        held_up = self._paused and not self._request_queue.serving
        return bool(self._request_queue.fresh) or held_up or self._components.signals.reload

    def _hear(self) -> None:
        """Note what has come."""
        components = self._components
        components.wakeup.drain()  # before the hints are taken, or a ring between the two would be lost
        changes = components.watch.take()
        self._dirty.heard(changes)
        if changes:
            self._burst = noted(self._burst, self._clock.monotonic_s())
        slept_s = components.monitor.slept_s()
        self._woke = bool(slept_s)
        if slept_s:
            _log.info("slept for %.0f s: looking at everything again", slept_s)
            components.client.drop()
            self._look_everywhere()
            self._backoff.woke(slept_s)
            self._slept_s += slept_s
        components.client.close_idle()
        if components.signals.sync_now:
            components.signals.sync_now = False
            self._request_queue.add(SyncRequest())
        for client, message in components.control.requests():
            self._obey(client, message)
        if self._backoff.waits_for_person:
            components.signals.reload = components.signals.reload or components.key_stamp() != self._key_stamp
        self._publisher.notify()
        if components.agent_notifier.look():
            self._warn()
            self._publisher.show()
        components.manager.ping()

    def _obey(self, client: Client, message: Message) -> None:
        match message.get("do"):
            case "push":
                self._add(SyncRequest(client, SyncMode.FORCED if message.get("force") else SyncMode.CHANGED))
            case "flush" if self._paused:
                client.done(PAUSED.exit_code, str(PAUSED))
            case "flush":
                self._add(SyncRequest(client, lasting=True))
            case "hello":
                client.done(0, result={"version": __version__})
            case "left":
                self._leave(str(message.get("sandbox")))
                client.done(0)
            case "pause" | "resume" as word:
                self._pause_or_resume(client, word)
            case _:
                client.done(2, "this daemon does not know that command: is it of another version?")

    def _add(self, request: SyncRequest) -> None:
        """Take a command's request. It may have to wait for the end of a sync: its client is sent the stage of that."""
        self._request_queue.add(request)
        if request.client is not None and self._publisher.state in _SYNCING:
            request.client.send({"event": "progress", "state": self._publisher.state})

    def _leave(self, sandbox_id: str) -> None:
        """Someone released it: an idle daemon would not ask, and never hear of that."""
        target = self._components.cycle.target
        if target is not None and target.sandbox_id == sandbox_id and self._components.cycle.provider.lost(target):
            self._look_everywhere()

    def _pause_or_resume(self, client: Client, word: str) -> None:
        try:
            self._components.pause_file.set(paused=word == "pause")
        except OSError as failure:
            client.done(TryLater.exit_code, f"the state folder cannot be written: {failure.strerror}")
            return
        if self._paused and word == "resume":
            self._look_everywhere()
        self._paused = word == "pause"
        if self._paused:
            self._request_queue.pause()
        _log.info("%sd", word)
        client.done(0)

    def _scheduler_input(self) -> SchedulerInput:
        moves_in_s = self._components.cycle.moves_in_s
        moves_at_s = inf if moves_in_s is None else self._clock.monotonic_s() + moves_in_s
        return SchedulerInput(
            burst=self._burst,
            requested=bool(self._request_queue.fresh),
            paused=self._paused,
            hold=self._backoff.hold,
            not_before_s=self._backoff.not_before_s,
            rescan_at_s=min(self._rescan_at_s, moves_at_s),
        )

    def _times(self) -> tuple[float, float]:
        return self._components.timing.quiet_s, self._components.timing.max_wait_s
