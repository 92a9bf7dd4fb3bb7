"""What is told of one sandbox; and its sync under way, whose stages are the status, and whose waits newer events end.

`SandboxReporter` tells, in the status, in the history and to commands; `SyncRun` observes one sync for it.
"""

from __future__ import annotations

import logging
from math import inf

from msgspec import Struct
from msgspec.structs import asdict, replace

from syncd.core.waiter import Superseded, Work
from syncd.daemon.agenda import Agenda, SharedState
from syncd.daemon.follower import Follower
from syncd.daemon.scheduler import retry_at_s
from syncd.remote.failure import FailureAction, StepFailed
from syncd.report.history import HistoryRecorder
from syncd.report.status_publisher import StatusPublisher
from syncd.sync.outcome import SyncReason
from syncd.sync.status_document import Progress, State
from syncd.sync.sync_cycle import SyncCycle
from syncd.watch.changes import Burst, unfinished
from syncd.watch.mounts import poll_interval_s

_log = logging.getLogger("syncd")


class SandboxReporter(Struct):
    """Tells of one sandbox: in the status, in the history, and to the commands that wait for its sync."""

    publisher: StatusPublisher
    history: HistoryRecorder
    agenda: Agenda
    cycle: SyncCycle
    follower: Follower
    shared: SharedState
    stage: State | None = None  # of the sync under way, the one that is shown

    def enter(self, state: State, until_s: float = inf) -> None:
        """Publish a state, with the time of the next try where that is known, unless a person paused."""
        self.publisher.enter(State.PAUSED if self.agenda.is_paused else state, until_s)

    def note_pending(self) -> None:
        self.publisher.note(pending=self.publisher.now.pending or self.agenda.due.burst is not None)

    def learn(self) -> None:
        """Note for the status what is known now."""
        status = self.cycle.shown(self.publisher.now)
        self.publisher.now = replace(status, agent=self.follower.shown(status.agent))

    def tell(self) -> None:
        """Note for the status what is known now, and what to warn of."""
        self.learn()
        agent = [*self.shared.synced_hook.warnings(self.cycle.name), *self.follower.warnings]
        self.publisher.own_warnings = {each.key for each in (*self.cycle.sandbox_warnings, *agent)}
        removed = (warning for each in self.shared.removed_sandboxes for warning in each.warnings)
        self.publisher.warn([*self.cycle.warnings, *self.shared.watch.warnings(), *agent, *removed])

    def recall(self) -> None:
        """Have the status tell what is recorded of this sandbox, or shared, and came not by its own syncs."""
        self.tell()
        self.publisher.publish()

    def send_failure(self, failure: Exception, wait_s: float, gives_up_in_s: float | None = None) -> None:
        """Send those who wait what failed, and how long it takes to the next try."""
        attempt = self.publisher.now.failures_in_row + 1
        failed = f"{self.cycle.name}: {failure}" if self.shared.has_several else str(failure)
        self.agenda.requests.send_progress(
            state=State.RETRYING, failed=failed, attempt=attempt, wait_s=wait_s, gives_up_in_s=gives_up_in_s
        )


class SyncRun(Struct):
    """The sync under way, as its observer. Times are monotonic seconds."""

    reason: SyncReason
    burst: Burst  # the changes that it is for
    all_since_s: float  # not only what changed is scanned, unless all was since then
    cycle: SyncCycle
    agenda: Agenda
    reporter: SandboxReporter
    shared: SharedState
    has_scanned_all: bool = False

    def to_scan(self) -> frozenset[str] | None:
        """Return the directories that were changed; None for all."""
        only = self.shared.dirty.take(self.cycle.access.clock.monotonic_s(), self.all_since_s)
        self.has_scanned_all = self.has_scanned_all or only is None
        return only

    def scanned(self) -> None:
        """Wait on where the burst goes on in a new directory, of which no event tells before its first scan."""
        due, shared, now_s = self.agenda.due, self.shared, self.cycle.access.clock.monotonic_s()
        if shared.watch.needs_polling:  # not every change has an event: since this scan, or for longer
            poll_at_s = now_s + poll_interval_s(self.cycle.snapshotter.scanner.full_scan_took_s)
            shared.dirty.rescan_at_s = min(shared.dirty.rescan_at_s, poll_at_s)
        if self.reason is SyncReason.CHANGE:
            longer = unfinished(self.burst, shared.watch.found_s, now_s, due.quiet_s, due.max_wait_s)
            if longer is not None:
                self.burst = longer
                raise Superseded

    def stage(self, state: State) -> None:
        """Publish it, but not the scans of a hold, and none that nobody asked for."""
        self.shared.status.systemd.ping()
        self.agenda.has_slept = False
        if state is not State.SNAPSHOTTING:
            self.reporter.publisher.note(pending=True)
            self.reporter.learn()
        elif self.agenda.due.is_held or self.reason is SyncReason.RESCAN:
            return
        self.reporter.stage = state
        self.reporter.enter(state)
        self.agenda.requests.send_progress(state=state)

    def progressed(self, progress: Progress) -> None:
        """Publish it. A rescan that packs has found something."""
        if self.reason is SyncReason.RESCAN and not progress.is_upload:
            self.reporter.enter(State.SNAPSHOTTING)
        is_all_sent = progress.is_upload and progress.done_bytes == progress.total_bytes
        if self.reporter.publisher.progressed(progress) or is_all_sent:
            self.agenda.requests.send_progress(**asdict(progress))

    def wait_out(self, failure: StepFailed, wait_s: float) -> None:
        """Publish what failed, and wait, asleep or awake. Raises `Superseded` for a newer change, and at once for a
        request and a command that writes to the workspace.
        """
        if wait_s == 0:
            _log.info("%s; asking for a fresh upload URL", failure)
        else:
            _log.warning("%s; trying again in %.1f s", failure, wait_s)
            self.reporter.publisher.failed(failure.step, failure)
            self.reporter.send_failure(failure, wait_s, failure.gives_up_in_s)
        agenda, access = self.agenda, self.cycle.access
        clock, is_offline = access.clock, failure.action is FailureAction.OFFLINE
        ends_boottime_s = clock.boottime_s() + wait_s
        # Where no server answered, a change need not wait for as long.
        least_s = clock.monotonic_s() + (min(wait_s, access.config.retry.first_delay_seconds) if is_offline else wait_s)
        while True:
            if Work.RETRY.gives_way_s(agenda.newer_events()) <= clock.monotonic_s():
                raise Superseded
            now_s = clock.monotonic_s()
            until_s = retry_at_s(now_s + ends_boottime_s - clock.boottime_s(), least_s, agenda.due.changes_at_s)
            if now_s >= until_s:
                break
            self.reporter.enter(State.RETRYING, until_s)
            access.waiter.wait(until_s)
        if agenda.due.burst is not None:
            raise Superseded
