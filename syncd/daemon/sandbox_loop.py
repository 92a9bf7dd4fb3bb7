"""The loop of one sandbox: waits for the next event, and syncs when it is time.

It is a task of its own (`core.waiter`), so a sandbox that is slow or dead delays no other. What it has to do is in its
`Agenda`; a sync under way is a `SyncRun`.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from math import inf

from msgspec.structs import replace

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import ExitCode, NeedsPerson, Unavailable
from syncd.core.process import release_freed_memory
from syncd.core.waiter import Event, NewerEvents, Superseded, Work
from syncd.daemon.agenda import Agenda, SharedState
from syncd.daemon.control import Message
from syncd.daemon.follower import Follower, LookEnd
from syncd.daemon.scheduler import Step, Wait, ends_a_new_daemon, retry_after
from syncd.daemon.setup_task import SetupTask
from syncd.daemon.sync_requests import PAUSED, Asker, SyncRequest
from syncd.daemon.sync_run import SandboxReporter, SyncRun
from syncd.model.directory import forget_decoded
from syncd.model.manifest import difference
from syncd.remote.target import Target
from syncd.report.history import HistoryRecorder, SyncEnding
from syncd.report.logs import sandbox_in_logs
from syncd.report.status_publisher import StatusPublisher, SyncFailure, sync_failure
from syncd.sandbox.provider import McpServers
from syncd.sandbox.sandbox_content import SandboxContent
from syncd.sync.outcome import Outcome, SyncReason
from syncd.sync.sandbox import Access, retry_settings_of
from syncd.sync.status_document import State
from syncd.sync.sync_cycle import SyncCycle
from syncd.watch.changes import Burst, Changes

_log = logging.getLogger("syncd")

# A sync that is due waits so long for the names of the sandbox's MCP servers, which `sync.on_synced` is told.
_SERVERS_S = 2.0


class SandboxLoop:
    """The loop of one sandbox of a workspace."""

    def __init__(
        self, access: Access, shared: SharedState, publisher: StatusPublisher, another_access: Callable[[], Access]
    ) -> None:
        """What goes on beside the syncs has `another_access`, with connections of its own."""
        self.cycle = SyncCycle(access, shared.workspace)
        self.agenda = Agenda(self.cycle, shared)
        self.follower = Follower(another_access(), shared.workspace, self.cycle)
        history = HistoryRecorder(access.clock, access.db)
        self.reporter = SandboxReporter(publisher, history, self.agenda, self.cycle, self.follower, shared)
        self.setup = SetupTask(another_access(), self.cycle, self.reporter.recall)
        self._servers = McpServers(access.api)
        self._shared = shared
        self._waiter = access.waiter

    # -- the loop

    def run(self, is_over: Callable[[], bool]) -> None:
        """Run until that is true, which it is asked after each step. Raises `Stop`, `NeedsPerson`."""
        self._name_in_logs()
        publisher = self.reporter.publisher
        self.reporter.learn()
        publisher.enter(State.STARTING)
        try:
            with self._waiter.superseded_by(self.agenda.newer_events):
                while not is_over():
                    self._step()
        finally:
            # However it ended: the status says that changes are pending, and no plan outlives the process.
            self.reporter.note_pending()
            self.reporter.history.end(SyncEnding.STOPPED, publisher.now)
            publisher.enter(State.STOPPED)

    def _step(self) -> None:
        """Do what is due next, or wait for it."""
        match self.agenda.next_action():
            case Wait() as wait:
                self._rest(wait)
                return
            case SyncReason() as reason:
                self._sync(reason)
            case Step.FOLLOW:
                self._follow_in_repository()
            case Step.SAVE:
                self.cycle.save_before_end()
        self.reporter.tell()

    def _rest(self, wait: Wait) -> None:
        """Publish what the daemon waits for, and wait: for that, a change, a signal, a command, the end of a sleep."""
        self.reporter.note_pending()
        self.reporter.enter(wait.state, wait.until_s)
        self._waiter.wait(wait.until_s)

    def _follow_in_repository(self) -> None:
        with suppress(Superseded):
            self.cycle.follow_in_repository()
            self.agenda.due = replace(self.agenda.due, arrived=None)

    def _name_in_logs(self) -> None:
        """Have the log lines of this task name the sandbox, where there are several."""
        sandbox_in_logs.set(self.cycle.name if self._shared.has_several else "")

    # -- beside it

    def follow(self) -> None:
        """Look at what the agent makes, again and again, until the end. Raises `Stop`."""
        self._name_in_logs()
        agenda, follower, waiter = self.agenda, self.follower, self.follower.waiter
        # Once it is barred, nobody wants the one under way any more.
        with waiter.superseded_by(lambda: {Event.PAUSE: waiter.clock.monotonic_s()} if agenda.bars_looks else {}):
            waiter.repeat(self.look, lambda: inf if agenda.bars_looks else follower.due_s)

    def look(self) -> None:
        """Look at what the agent made, and tell it."""
        found = self.follower.look()
        self.reporter.recall()
        publisher = self.reporter.publisher
        if found is LookEnd.QUIET:
            publisher.notifier.agent_is_quiet(publisher.now.agent.changed)
        elif found is LookEnd.EMPTIED:
            self.sync_soon()
            self._waiter.tasks.wake()

    def set_up(self) -> None:
        """Set the sandbox up whenever that is due. Raises `Stop`, in the end."""
        self._name_in_logs()
        self.setup.run()

    # -- what comes from outside

    def note_changes(self, changes: Changes) -> None:
        self.cycle.snapshotter.note_modified(changes.modified)
        self.sync_soon()

    def sync_soon(self) -> None:
        """Sync as after a change, and tell at once that it is pending: what goes on meanwhile may show no state."""
        self.agenda.sync_soon()
        if self.reporter.publisher.now.state is State.WATCHING:
            self.reporter.note_pending()
            self.reporter.enter(State.DEBOUNCING)

    def woke(self, slept_s: float) -> None:
        """Begin anew after a sleep of the machine: time has passed, and its network may be another one."""
        self.follower.asked()
        self.agenda.woke(slept_s)
        if self.cycle.sandbox is not None:
            self.cycle.sandbox.delivery.forget_failures()

    def ask(self, message: Message, client: Asker) -> None:
        """Take a command's request for a sync, or for the set-up alone."""
        if message["do"] == "setup":
            self.setup.ask(client)
        else:
            sync_mode = SyncMode.FORCED if message.get("force") else SyncMode.CHANGED
            is_lasting, awaits_setup = message["do"] == "flush", not message.get("no_setup")
            self.add(SyncRequest(client, sync_mode, is_lasting, awaits_setup))

    def add(self, request: SyncRequest) -> None:
        """Take a request. It may have to wait for the end of a sync: its client is sent the stage of that."""
        self.agenda.add(request)
        self.follower.asked()
        if request.client is not None and self.reporter.stage is not None:
            request.client.send({"event": "progress", "state": self.reporter.publisher.now.state})

    def note_pause(self) -> None:
        """Pause, as a person asked: what is under way goes on, or gives way."""
        if self.cycle.name not in self._shared.workspace.syncing:  # no sync follows until a person resumes
            self.agenda.requests.failed(PAUSED, for_good=True)
        self.reporter.enter(self.reporter.stage or State.PAUSED)

    def note_resume(self) -> None:
        self.agenda.sync_soon()
        if self.reporter.stage is not None:
            self.reporter.enter(self.reporter.stage)

    def stood_by(self, contents: Collection[SandboxContent]) -> None:
        """Show what is pending here after a command for others, which hold these: what differs is."""
        held = self.cycle.content
        known = [each for each in (contents if held.is_known else ()) if each.is_known]
        is_same = any(not difference(held.base, each.base).certain for each in known)
        self.reporter.publisher.note(pending=not (self.cycle.is_settled and is_same))

    # -- one sync

    def _sync(self, reason: SyncReason) -> None:
        agenda, reporter, shared = self.agenda, self.reporter, self._shared
        due, began_s = agenda.due, self._waiter.clock.monotonic_s()
        sync_mode = agenda.begin()
        shared.refused.discard(self.cycle.name)
        # The event of what was saved right before a request may not have come yet.
        all_since_s = agenda.asked_s if agenda.requests.is_awaited else -inf
        burst = due.burst or Burst(began_s, began_s)
        run, outcome = SyncRun(reason, burst, all_since_s, self.cycle, agenda, reporter, shared), None
        if reason is not SyncReason.RESCAN and not due.is_held:
            reporter.publisher.note(pending=True)
        reporter.history.begin(reason.value, reporter.publisher.now)
        with shared.workspace.sync_of(self.cycle.name):
            try:
                outcome = self.cycle.run(sync_mode, run)
            except Superseded:
                reporter.history.end(SyncEnding.SUPERSEDED, reporter.publisher.now)
                agenda.requests.put_back()
                agenda.due = agenda.due.given_way(run.burst)
            except Exception as failure:  # noqa: BLE001 - a daemon's last resort
                # A defect must not end weeks of service: it is logged once, then tried again like any failure.
                self._failed(sync_failure(failure), began_s)
            else:
                self._succeeded(outcome)
        reporter.stage = None
        if shared.reload_after is not None:
            shared.reload_after.discard(self.cycle.name)
        forget_decoded()
        if run.has_scanned_all:
            release_freed_memory()
        agenda.due = replace(agenda.due, rescan_at_s=self.cycle.again_at_s)
        reporter.tell()
        shared.status.systemd.ping()
        if outcome is not None:
            self._answer(outcome)

    def _succeeded(self, outcome: Outcome) -> None:
        agenda, publisher = self.agenda, self.reporter.publisher
        self._shared.status.run.synced_once = True
        self.reporter.history.end(SyncEnding(outcome.word), publisher.now, outcome)
        publisher.succeeded(outcome)
        now_s = self._waiter.clock.monotonic_s()
        agenda.due = agenda.due.synced(now_s)
        # At once before a command is answered and where there is none yet: an agent may be started right after it.
        is_new = self.cycle.sandbox is not None and not self.cycle.sandbox.agent_repository.is_made
        if agenda.requests.is_awaited or is_new or agenda.due.follow_at_s <= now_s:
            self._follow_in_repository()
        self.setup.synced()
        if outcome.sync is not None:
            self.follower.note_activity()
        if outcome.follow_up:
            agenda.sync_soon()
            # What changed while it was read is found without an event too.
            folders = frozenset(path.rpartition("/")[0] for path in outcome.follow_up)
            self._shared.dirty.add(Changes(dirty=folders))
        publisher.note(pending=agenda.due.burst is not None)

    def _answer(self, outcome: Outcome) -> None:
        """Answer the clients of a sync that succeeded, who may read the status next: it tells all of it by now."""
        action = self.agenda.next_action()
        if isinstance(action, Wait):
            self.reporter.enter(action.state)
        for client, request, result in self.agenda.requests.succeeded(outcome):
            if request.awaits_setup:
                self.setup.answer_later(client, result)
            else:
                client.done(ExitCode.DONE, result=result)
        # Last, as it may take a moment.
        hook, target = self._shared.synced_hook, self.cycle.target
        if hook.is_configured and target is not None and outcome.arrived is not None:
            hook.arrived(self.cycle.name, target, outcome.arrived, self._servers_of(target))

    def _servers_of(self, target: Target) -> Mapping[str, str]:
        """Return the sandbox's MCP servers; a sync that is due waits no longer for an API that does not answer."""
        ends_s = self._waiter.clock.monotonic_s() + _SERVERS_S

        def newer_events() -> NewerEvents:
            return {event: max(at_s, ends_s) for event, at_s in self.agenda.newer_events().items()}

        with suppress(Superseded), self._waiter.superseded_by(newer_events), self._waiter.doing(Work.READ):
            return self._servers.of(target, self.cycle.provider.acquired_sandbox)
        return {}

    def _failed(self, failed: SyncFailure, began_s: float) -> None:
        """Tell of it, and set the next try. Raises it, if it ends the daemon."""
        agenda, reporter, shared, failure = self.agenda, self.reporter, self._shared, failed.error
        publisher = reporter.publisher
        reporter.learn()  # of which sandbox it is: a move may have failed before it
        last = publisher.now.last_error
        has_vanished = shared.was_there and not os.path.isdir(shared.workspace.path)
        is_refused = ends_a_new_daemon(failure) and not shared.status.run.synced_once and not has_vanished
        if is_refused:
            shared.refused.add(self.cycle.name)
        ends = is_refused and len(shared.refused) == len(shared.status.publishers)  # all are
        if not ends and (last is None or last.message != str(failure)):  # `syncd run` logs what ends it
            _log.log(logging.ERROR if isinstance(failure, NeedsPerson) else logging.WARNING, "%s", failure)
        publisher.failed(failed.step, failure)
        reporter.history.end(SyncEnding.FAILED, publisher.now)
        agenda.requests.failed(failure, for_good=isinstance(failure, NeedsPerson))
        self.setup.sync_failed(failure)
        publisher.note(pending=True)
        now_s = self._waiter.clock.monotonic_s()
        if ends:
            raise failure
        retry = retry_after(
            failure,
            agenda.due.retry,
            retry_settings_of(self.cycle.access.config),
            now_s,
            took_s=now_s - began_s,
            chance=random.random(),  # noqa: S311 - jitter, not a secret
            asked_s=failed.retry_after_s,
        )
        agenda.due = replace(agenda.due, retry=retry)
        if not retry.is_hold:
            reporter.send_failure(failure, retry.at_s - now_s)
        if not isinstance(failure, Unavailable):
            shared.dirty.mark_all()
