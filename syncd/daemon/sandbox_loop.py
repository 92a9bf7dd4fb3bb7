"""The loop of one sandbox: waits for the next event, and syncs when it is time.

`daemon.scheduler` decides what to do next; the loop keeps the values that the decision rests on. The loop is also the
`SyncObserver` of its own syncs, whose stages become the status, and says what these give way to. It is a task of its
own (`core.waiter`), so a sandbox that is slow or dead delays no other.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from math import inf

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from syncd.archive.snapshotter import SyncMode
from syncd.core.durable_file import file_stamp
from syncd.core.errors import ExitCode, NeedsPerson, Unavailable
from syncd.core.process import release_freed_memory
from syncd.core.waiter import Event, NewerEvents, Superseded, Work
from syncd.daemon.control import Message
from syncd.daemon.follower import Follower, LookEnd
from syncd.daemon.left_sandbox import LeftSandbox
from syncd.daemon.scheduler import (
    Due,
    Facts,
    Step,
    Wait,
    ends_a_new_daemon,
    newer_events,
    next_action,
    retry_after,
    retry_at_s,
)
from syncd.daemon.setup_task import SetupTask
from syncd.daemon.sync_requests import PAUSED, Asker, RequestQueue, SyncRequest, request_of
from syncd.model.manifest import difference
from syncd.remote.failure import FailureAction, StepFailed
from syncd.report.history import HistoryRecorder, SyncEnding
from syncd.report.logs import sandbox_in_logs
from syncd.report.status_publisher import StatusPublisher, SyncFailure, WorkspaceStatus, sync_failure
from syncd.sandbox.provider import McpServers
from syncd.sandbox.sandbox_content import SandboxContent
from syncd.sync.outcome import Outcome, SyncReason
from syncd.sync.sandbox import Access, retry_settings_of
from syncd.sync.status_document import Progress, State
from syncd.sync.sync_cycle import SyncCycle
from syncd.sync.synced_hook import SyncedHook
from syncd.sync.workspace import Workspace
from syncd.watch.changes import Burst, Changes, DirtyDirectories, unfinished
from syncd.watch.inotify_watch import InotifyWatch
from syncd.watch.mounts import poll_interval_s

_log = logging.getLogger("syncd")

# While the key is refused, its file is checked this often.
KEY_POLL_S = 2.0


class SyncRun(Struct, eq=False):
    """The sync of a sandbox that is under way, or its last one. Times are monotonic seconds."""

    reason: SyncReason
    started_s: float
    burst: Burst  # the changes that it is for
    all_since_s: float = -inf  # not only what changed is scanned, unless all was since then
    is_on: bool = True  # under way
    has_scanned_all: bool = False
    stage: State | None = None  # the one that it shows
    has_slept: bool = False  # the machine, since the stage began


class SharedState(Struct):
    """The state of one workspace."""

    watch: InotifyWatch
    synced_hook: SyncedHook
    status: WorkspaceStatus
    left: list[LeftSandbox]
    dirty: DirtyDirectories
    was_there: bool  # the workspace, at the start
    paused: bool = False  # by a person
    reload_after: list[SyncRun] | None = None  # a reload is asked for, and waits for these; None: none is
    refused: set[str] = field(default_factory=set)  # the sandboxes that were, of a run in which none was synced to

    @property
    def has_several(self) -> bool:
        """True if the workspace has several sandboxes, so that each is named."""
        return len(self.status.publishers) > 1

    def delays_reload(self, sync: SyncRun) -> bool:
        """True if a reload waits for the end of this sync, which gives way to it."""
        return sync.is_on and self.reload_after is not None and sync in self.reload_after

    @property
    def reload(self) -> bool:
        """True if the loops are to end, for another configuration."""
        return self.reload_after is not None and not any(each.is_on for each in self.reload_after)

    def note_refusal(self, name: str) -> bool:
        """Note that this sandbox is refused before anything was synced; true if all are by now."""
        self.refused.add(name)
        return len(self.refused) == len(self.status.publishers)


class SandboxLoop:
    """The loop of one sandbox of a workspace."""

    def __init__(
        self,
        access: Access,
        workspace: Workspace,
        shared: SharedState,
        publisher: StatusPublisher,
        another_access: Callable[[], Access],
    ) -> None:
        """What goes on beside the syncs has `another_access`, with connections of its own."""
        self.name = access.config.sandbox_name
        self.cycle = SyncCycle(access, workspace)
        self.publisher = publisher
        self._history = HistoryRecorder(access.clock, access.db)
        self.follower = Follower(another_access(), workspace, self.cycle)
        self.setup = SetupTask(another_access(), self.cycle, self.recall)
        self._servers = McpServers(access.api)
        self._workspace = workspace
        self._shared = shared
        self._clock = access.clock
        self._waiter = access.waiter
        self._retry_settings = retry_settings_of(access.config)
        self._key_file = access.config.sandbox.api_key_file
        self._request_queue = RequestQueue()
        now_s, times = self._clock.monotonic_s(), access.config.sync
        # What changed while nothing ran is not known.
        self._due = Due(times.debounce_seconds, times.max_wait_seconds, rescan_at_s=now_s, starting=True)
        self.sync = SyncRun(SyncReason.START, now_s, Burst(now_s, now_s), is_on=False)
        self._asked_s = -inf  # when the last request came
        self._key_stamp = shared.status.run.key_stamps.get(self._key_file, file_stamp(self._key_file))

    @property
    def _facts(self) -> Facts:
        """What others have this loop do, or leave, as of now."""
        shared = self._shared
        rescan_at_s = min(shared.dirty.rescan_at_s, self.cycle.provider.replace_at_s)
        if self.cycle.snapshotter.is_outdated:
            rescan_at_s = -inf
        return Facts(
            requested=self._request_queue.has_fresh,
            paused=self._is_paused,
            written_to=self._workspace.keeps_from_syncing(self.name),
            reloads=shared.reload or shared.delays_reload(self.sync),
            slept=self.sync.has_slept,
            rescan_at_s=rescan_at_s,
            save_at_s=self.cycle.save_at_s,
        )

    def _newer_events(self) -> NewerEvents:
        return newer_events(self._due, self._facts, self._clock.monotonic_s())

    @property
    def _is_paused(self) -> bool:
        """True if a person paused, and nobody waits for a sync: given up, that would be begun again without end."""
        return self._shared.paused and not self._request_queue.is_awaited

    # -- the loop

    @property
    def beside(self) -> list[Callable[[], None]]:
        """The tasks that go on beside the syncs until the end: the looks that follow the agent, the set-ups."""
        return [partial(self._named_in_logs, work) for work in (self._follow, self.setup.run)]

    def _named_in_logs(self, work: Callable[[], None]) -> None:
        """Do the work of a task, whose log lines name the sandbox where there are several."""
        sandbox_in_logs.set(self.name if self._shared.has_several else "")
        work()

    def run(self, is_over: Callable[[], bool]) -> None:
        """Run until that is true, which it is asked after each step. Raises `Stop`, `NeedsPerson`."""
        with self._started():
            while not is_over():
                self._step()

    def recall(self) -> None:
        """Have the status tell what is recorded of this sandbox, or shared, and came not by its own syncs."""
        self._tell()
        self.publisher.publish()

    def stood_by(self, contents: Collection[SandboxContent]) -> None:
        """Show what is pending here after a command for others, which hold these: what differs is."""
        held = self.cycle.content
        known = [each for each in (contents if held.is_known else ()) if each.is_known]
        is_same = any(not difference(held.base, each.base).certain for each in known)
        self.publisher.note(pending=not (self.cycle.is_settled and is_same))

    @contextmanager
    def _started(self) -> Iterator[None]:
        publisher = self.publisher
        self._learn()
        publisher.enter(State.STARTING)
        try:
            with self._waiter.superseded_by(self._newer_events):
                yield
        finally:
            # However it ended: the status says that changes are pending, and no plan outlives the process.
            self._note_pending()
            self._history.end(SyncEnding.STOPPED, publisher.now)
            publisher.enter(State.STOPPED)

    def _follow(self) -> None:
        """Look at what the agent makes, again and again, until the end. Raises `Stop`."""
        waiter = self.follower.waiter
        with waiter.superseded_by(self._events_for_look):
            waiter.repeat(self.look, lambda: inf if self._is_barred else self.follower.due_s)

    def look(self) -> None:
        """Look at what the agent made, and tell it."""
        found = self.follower.look()
        self.recall()
        if found is LookEnd.QUIET:
            self.publisher.notifier.agent_is_quiet(self.publisher.now.agent.changed)
        elif found is LookEnd.EMPTIED:
            self.sync_soon()
            self._waiter.tasks.wake()

    @property
    def _is_barred(self) -> bool:
        """True if the sandbox is not to be asked: a person paused, or the key is refused."""
        return self._is_paused or self._due.awaits_person

    def _events_for_look(self) -> NewerEvents:
        """Return the events after which nobody wants a look any more."""
        return {Event.PAUSE: self._clock.monotonic_s()} if self._is_barred else {}

    def _step(self) -> None:
        """Do what is due next, or wait for it."""
        sandbox_in_logs.set(self.name if self._shared.has_several else "")
        match next_action(self._due, self._facts, self._clock.monotonic_s()):
            case Wait() as wait:
                self._rest(wait)
                return
            case SyncReason() as reason:
                self._sync(reason)
            case Step.FOLLOW:
                self._follow_in_repository()
            case Step.SAVE:
                self.cycle.save_before_end()
        self._tell()

    def _rest(self, wait: Wait) -> None:
        """Publish what the daemon waits for, and wait."""
        self._note_pending()
        self._enter(wait.state, wait.until_s)
        self._wait(wait.until_s)

    def _wait(self, until_s: float) -> None:
        """Wait until then, or for a change, a signal, a command or the end of a sleep."""
        self._waiter.wait(until_s)

    # -- what comes from outside

    def note_changes(self, changes: Changes) -> None:
        self.cycle.snapshotter.note_written(changes.written)
        self.sync_soon()

    def sync_soon(self) -> None:
        """Sync as after a change."""
        self._due = self._due.with_change(self._clock.monotonic_s())

    def woke(self, slept_s: float) -> None:
        """Begin anew after a sleep of the machine: time has passed, and its network may be another one."""
        self.follower.asked()
        self._due = self._due.woken(slept_s, self._clock.monotonic_s())
        if self.cycle.sandbox is not None:
            self.cycle.sandbox.delivery.forget_failures()
        self.sync.has_slept = True

    def ask(self, message: Message, client: Asker) -> None:
        """Take a command's request for a sync, or for the set-up alone."""
        if message["do"] == "setup":
            self.setup.ask(client)
        else:
            self.add(request_of(message, client))

    def add(self, request: SyncRequest) -> None:
        """Take a request. It may have to wait for the end of a sync: its client is sent the stage of that."""
        self._request_queue.add(request)
        self._asked_s = self._clock.monotonic_s()
        self.follower.asked()
        if request.client is not None and self.sync.stage is not None:
            request.client.send({"event": "progress", "state": self.publisher.now.state})

    def note_pause(self) -> None:
        """Pause, as a person asked: what is under way goes on, or gives way."""
        if not self.sync.is_on:  # no sync follows until a person resumes
            self._request_queue.failed(PAUSED, for_good=True)
        self._enter(self.sync.stage or State.PAUSED)

    def note_resume(self) -> None:
        self.sync_soon()
        if self.sync.stage is not None:
            self._enter(self.sync.stage)

    # -- one sync

    def _sync(self, reason: SyncReason) -> None:
        due, now_s = self._due, self._clock.monotonic_s()
        run = self.sync = SyncRun(reason, now_s, due.burst or Burst(now_s, now_s))
        self._due = due.begun()
        sync_mode = self._request_queue.begin()
        if self._request_queue.is_awaited:
            run.all_since_s = self._asked_s  # the event of what was saved right before may not have come yet
        if reason is not SyncReason.RESCAN and not due.is_held:
            self.publisher.note(pending=True)
        self._history.begin(reason.value, self.publisher.now)
        try:
            with self._workspace.sync_of(self.name):
                outcome = self._try(sync_mode)
        finally:
            run.is_on, run.stage = False, None
        if run.has_scanned_all:
            release_freed_memory()
        self._due = replace(self._due, rescan_at_s=self.cycle.again_at_s)
        self._tell()
        self._shared.status.systemd.ping()
        if outcome is not None:
            self._answer(outcome)

    def _try(self, sync_mode: SyncMode) -> Outcome | None:
        """Sync, and return the outcome; None if it failed, or gave way."""
        try:
            outcome = self.cycle.run(sync_mode, self)
        except Superseded:
            self._history.end(SyncEnding.SUPERSEDED, self.publisher.now)
            self._request_queue.put_back()
            self._due = self._due.given_way(self.sync.burst)
        except Exception as failure:  # noqa: BLE001 - a daemon's last resort
            # A defect must not end weeks of service: it is logged once, then tried again like any failure.
            self._failed(sync_failure(failure))
        else:
            self._succeeded(outcome)
            return outcome
        return None

    def _succeeded(self, outcome: Outcome) -> None:
        self._shared.status.run.synced_once = True
        self._history.end(SyncEnding(outcome.word), self.publisher.now, outcome)
        self.publisher.succeeded(outcome)
        now_s = self._clock.monotonic_s()
        self._due = self._due.synced(now_s)
        # At once before a command is answered and where there is none yet: an agent may be started right after it.
        if self._request_queue.is_awaited or not self.cycle.has_repository or self._due.follow_at_s <= now_s:
            self._follow_in_repository()
        self.setup.synced()
        if outcome.sync is not None:
            self.follower.note_activity()
        if outcome.follow_up:
            self.sync_soon()
            # What changed while it was read is found without an event too.
            folders = frozenset(path.rpartition("/")[0] for path in outcome.follow_up)
            self._shared.dirty.add(Changes(dirty=folders))
        self.publisher.note(pending=self._due.burst is not None)

    def _answer(self, outcome: Outcome) -> None:
        """Answer the clients of a sync that succeeded, who may read the status next: it tells all of it by now."""
        action = next_action(self._due, self._facts, self._clock.monotonic_s())
        if isinstance(action, Wait):
            self._enter(action.state)
        for client, request, result in self._request_queue.succeeded(outcome):
            if request.awaits_setup:
                self.setup.answer_later(client, result)
            else:
                client.done(ExitCode.DONE, result=result)
        # Last, as it may take a moment.
        hook, target = self._shared.synced_hook, self.cycle.target
        if hook.is_configured and target is not None and outcome.arrived is not None:
            servers = self._servers.of(target, self.cycle.provider.acquired_sandbox)
            hook.arrived(self.name, target, outcome.arrived, servers)

    def _follow_in_repository(self) -> None:
        with suppress(Superseded):
            self.cycle.follow_in_repository()
            self._due = replace(self._due, arrived=None)

    def _failed(self, failed: SyncFailure) -> None:
        publisher, failure = self.publisher, failed.error
        self._learn()  # of which sandbox it is: a move may have failed before it
        last = publisher.now.last_error
        has_vanished = self._shared.was_there and not os.path.isdir(self._workspace.path)
        is_refused = ends_a_new_daemon(failure) and not self._shared.status.run.synced_once and not has_vanished
        ends = is_refused and self._shared.note_refusal(self.name)
        if not ends and (last is None or last.message != str(failure)):  # `syncd run` logs what ends it
            _log.log(logging.ERROR if isinstance(failure, NeedsPerson) else logging.WARNING, "%s", failure)
        publisher.failed(failed.step, failure)
        self._history.end(SyncEnding.FAILED, publisher.now)
        self._request_queue.failed(failure, for_good=isinstance(failure, NeedsPerson))
        publisher.note(pending=True)
        now_s = self._clock.monotonic_s()
        if ends:
            raise failure
        retry = retry_after(
            failure,
            self._due.retry,
            self._retry_settings,
            now_s,
            took_s=now_s - self.sync.started_s,
            chance=random.random(),  # noqa: S311 - jitter, not a secret
            asked_s=failed.retry_after_s,
        )
        self._due = replace(self._due, retry=retry)
        if not retry.is_hold:
            self._send_failure(failure, retry.at_s - now_s, None)
        if not isinstance(failure, Unavailable):
            self._shared.dirty.mark_all()

    # -- the observer of a sync

    def to_scan(self) -> frozenset[str] | None:
        """Return the directories that were changed; None for all."""
        only = self._shared.dirty.take(self._clock.monotonic_s(), self.sync.all_since_s)
        self.sync.has_scanned_all = self.sync.has_scanned_all or only is None
        return only

    def scanned(self) -> None:
        """Wait on where the burst goes on in a new directory, of which no event tells before its first scan."""
        run, due, shared, now_s = self.sync, self._due, self._shared, self._clock.monotonic_s()
        if shared.watch.needs_polling:  # not every change has an event: since this scan, or for longer
            poll_at_s = now_s + poll_interval_s(self.cycle.snapshotter.scanner.full_scan_took_s)
            shared.dirty.rescan_at_s = min(shared.dirty.rescan_at_s, poll_at_s)
        if run.reason is SyncReason.CHANGE:
            longer = unfinished(run.burst, shared.watch.found_s, now_s, due.quiet_s, due.max_wait_s)
            if longer is not None:
                run.burst = longer
                raise Superseded

    def stage(self, state: State) -> None:
        """Publish it, but not the scans of a hold, and none that nobody asked for."""
        self._shared.status.systemd.ping()
        self.sync.has_slept = False
        if state is not State.SNAPSHOTTING:
            self.publisher.note(pending=True)
            self._learn()
        elif self._due.is_held or self.sync.reason is SyncReason.RESCAN:
            return
        self.sync.stage = state
        self._enter(state)
        self._request_queue.send_progress(state=state)

    def progressed(self, progress: Progress) -> None:
        """Publish it. A rescan that packs has found something."""
        if self.sync.reason is SyncReason.RESCAN and not progress.is_upload:
            self._enter(State.SNAPSHOTTING)
        is_all_sent = progress.is_upload and progress.done_bytes == progress.total_bytes
        if self.publisher.progressed(progress) or is_all_sent:
            self._request_queue.send_progress(**asdict(progress))

    def wait_out(self, failure: StepFailed, wait_s: float) -> None:
        """Publish what failed, and wait, asleep or awake. Raises `Superseded` for a newer change, and at once for a
        request and a command that writes to the workspace.
        """
        if wait_s == 0:
            _log.info("%s; asking for a fresh upload URL", failure)
        else:
            _log.warning("%s; trying again in %.1f s", failure, wait_s)
            self.publisher.failed(failure.step, failure)
            self._send_failure(failure, wait_s, failure.gives_up_in_s)
        clock, is_offline = self._clock, failure.action is FailureAction.OFFLINE
        ends_boottime_s = clock.boottime_s() + wait_s
        # Where no server answered, a change need not wait for as long.
        least_s = clock.monotonic_s() + (min(wait_s, self._retry_settings.first_s) if is_offline else wait_s)
        while True:
            if Work.RETRY.gives_way_s(self._newer_events()) <= clock.monotonic_s():
                raise Superseded
            now_s = clock.monotonic_s()
            until_s = retry_at_s(now_s + ends_boottime_s - clock.boottime_s(), least_s, self._due.changes_at_s)
            if now_s >= until_s:
                break
            self._enter(State.RETRYING, until_s)
            self._wait(until_s)
        if self._due.burst is not None:
            raise Superseded

    def _send_failure(self, failure: Exception, wait_s: float, gives_up_in_s: float | None) -> None:
        attempt = self.publisher.now.failures_in_row + 1
        failed = f"{self.name}: {failure}" if self._shared.has_several else str(failure)
        self._request_queue.send_progress(
            state=State.RETRYING, failed=failed, attempt=attempt, wait_s=wait_s, gives_up_in_s=gives_up_in_s
        )

    # -- the status

    def _enter(self, state: State, until_s: float = inf) -> None:
        """Publish a state, with the time of the next try where that is known, unless a person paused."""
        if self._is_paused:
            self.publisher.enter(State.PAUSED)
        elif state is State.RETRYING and until_s < inf:
            self.publisher.retry_in(until_s - self._clock.monotonic_s())
        else:
            self.publisher.enter(state)

    def _note_pending(self) -> None:
        self.publisher.note(pending=self.publisher.now.pending or self._due.burst is not None)

    def _tell(self) -> None:
        """Note for the status what is known now, and what to warn of."""
        self._learn()
        agent = [*self._shared.synced_hook.warnings(self.name), *self.follower.warnings]
        self.publisher.own_warnings = {each.key for each in (*self.cycle.sandbox_warnings, *agent)}
        left = (warning for each in self._shared.left for warning in each.warnings)
        self.publisher.warn([*self.cycle.warnings, *self._shared.watch.warnings(), *agent, *left])

    def _learn(self) -> None:
        status = self.cycle.shown(self.publisher.now)
        self.publisher.now = replace(status, agent=self.follower.shown(status.agent))

    # -- in each wait: between two syncs, and in them

    def deadline_s(self) -> float:
        """The monotonic second at which something is due, even if nothing comes."""
        key_due_s = self._clock.monotonic_s() + KEY_POLL_S if self._awaits_key else inf
        return min(self.publisher.notifier.due_s, key_due_s)

    @property
    def has_new_key(self) -> bool:
        """True if a key was refused, and its file is another one by now."""
        return self._awaits_key and file_stamp(self._key_file) != self._key_stamp

    @property
    def _awaits_key(self) -> bool:
        return self._due.awaits_person or bool(self._shared.status.run.refused)
