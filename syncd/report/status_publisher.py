"""Keeps the status of each sandbox and publishes it: log, history, desktop, and the document of the workspace."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec import Struct, field
from msgspec.structs import replace

from syncd import __version__
from syncd.core.clock import Clock, stamp
from syncd.core.errors import NeedsPerson, SyncdError, SyncWarning, TryLater, WorkspaceError
from syncd.core.settings import MAIN
from syncd.core.text import counted, for_sandbox, one_line, shown_path
from syncd.remote.failure import ApiStep, StepFailed
from syncd.remote.target import AcquiredSandbox, Target
from syncd.report.desktop_notifier import DesktopNotifier, LastNotice
from syncd.report.history import HistoryRecorder
from syncd.report.logs import place_of
from syncd.report.speed import Speed
from syncd.report.status_store import encoded, read_document, write_status
from syncd.report.systemd_notify import SystemdNotifier
from syncd.sync.outcome import Outcome
from syncd.sync.status_document import (
    AgentStatus,
    LastError,
    LastSync,
    Progress,
    SandboxName,
    SandboxStatus,
    State,
    Status,
    not_read,
)
from syncd.sync.sync_cycle import SyncCycle

_log = logging.getLogger("syncd")
_PROGRESS_EVERY_S = 0.5


class SandboxTotals(Struct):
    """The totals of a run for one sandbox. They outlive a reload, as far as the configuration still names the same."""

    syncs: int = 0
    failures: int = 0
    last_sync: LastSync | None = None
    last_error: LastError | None = None
    synced_once: bool = False
    uploaded_bytes: int = 0
    last_notice: LastNotice = field(default_factory=LastNotice)
    _configured: tuple[str, str, str | None] | None = None
    _target: Target | None = None

    def is_for(self, workspace: str, base_url: str, sandbox_id: str | None) -> None:
        """Begin anew if the configuration names another workspace or sandbox. `sandbox_id` None: it is acquired."""
        configured = workspace, base_url, sandbox_id
        if self._configured not in (None, configured):
            self.syncs = self.failures = self.uploaded_bytes = 0
            self.last_sync = self.last_error = self._target = None
        self._configured = configured

    def goes_to(self, target: Target) -> None:
        """Forget the last sync and error if they are those of another sandbox."""
        if self._target is not None and not self._target.same_sandbox(target):
            self.last_sync = self.last_error = None
        self._target = target


class RunTotals(Struct):
    """The totals of a run, by the names of its sandboxes."""

    started_at: str | None = None
    sandboxes: dict[str, SandboxTotals] = field(default_factory=dict)

    def of(self, name: str) -> SandboxTotals:
        return self.sandboxes.setdefault(name, SandboxTotals())


class StatusPublisher(Struct):
    """The values of the status of one sandbox, which has this `name`. Each change is published at once."""

    name: str
    target: Target
    publish: Callable[[], None]
    recorder: HistoryRecorder
    notifier: DesktopNotifier
    clock: Clock
    totals: SandboxTotals
    state: State = State.STARTING
    pending: bool = False
    retry_at: str | None = None
    gives_up_at: str | None = None
    failures_in_row: int = 0
    url_expires_at: str | None = None
    progress: Progress | None = None
    warnings: list[SyncWarning] = field(default_factory=list)
    own_warnings: set[str] = field(default_factory=set)  # the keys of those that are not about the workspace
    left_out: dict[str, int] = field(default_factory=dict)
    acquired_sandbox: AcquiredSandbox | None = None
    lingering: int = 0
    agent: AgentStatus = field(default_factory=AgentStatus)
    state_since: str | None = None
    _speed: Speed = field(default_factory=Speed)
    _sent_bytes: int = 0
    _shown_s: float = 0.0
    _logged: set[str] = field(default_factory=set)

    def is_own(self, before: SandboxStatus | None) -> bool:
        """True if an earlier process's status is of this sandbox."""
        return before is not None and (before.id, before.base_url) == (self.target.sandbox_id, self.target.base_url)

    def enter(self, state: State) -> None:
        if state is not self.state or self.state_since is None:
            self.state_since = stamp(self.clock.wall_s())
            self.progress, self._speed = None, Speed()
        self.state = state
        if state is State.PAUSED:
            self.notifier.paused()
        if state is not State.RETRYING:
            self.retry_at = self.gives_up_at = None
        self.publish()

    def ended(self) -> None:
        """The process ends: no plan and no state outlives it."""
        if self.state is not State.STOPPED:
            self.enter(State.STOPPED)

    def retry_in(self, wait_s: float) -> None:
        """Publish how much of a wait is left. Called each time it continues: the clock may have been set meanwhile."""
        self.retry_at = stamp(self.clock.wall_s() + wait_s)
        self.enter(State.RETRYING)

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> bool:
        """Packaging made progress. True if it was published, which happens twice a second at most."""
        return self._progressed(done_bytes, total_bytes, done_files, total_files)

    def sent(self, sent_bytes: int, total_bytes: int) -> bool:
        """The upload made progress. True if it was published, which happens twice a second at most."""
        self.totals.uploaded_bytes += max(0, sent_bytes - self._sent_bytes)
        self._sent_bytes = sent_bytes
        self.recorder.sent(sent_bytes)
        return self._progressed(sent_bytes, total_bytes)

    def _progressed(self, done_bytes: int, total_bytes: int, *files: int) -> bool:
        now_s = self.clock.monotonic_s()
        self._speed = self._speed.observed(now_s, done_bytes)
        if now_s - self._shown_s < _PROGRESS_EVERY_S:
            return False
        self._shown_s = now_s
        rate, left_s = self._speed.bytes_per_s(now_s), self._speed.seconds_left(total_bytes, now_s)
        done_files, total_files = files or (None, None)
        self.progress = Progress(done_bytes, total_bytes, done_files, total_files, rate, left_s)
        self.publish()
        return True

    @property
    def notification_due_s(self) -> float | None:
        """The monotonic second from which on `notify` has something to show; None: nothing is planned."""
        return None if self.state is State.UPLOADING else self.notifier.due_s

    def notify(self) -> None:
        """Show the desktop notification that is due. None during an upload, which may be the end of the failure."""
        if self.state is not State.UPLOADING:
            self.notifier.show_due()

    def learn(self, cycle: SyncCycle) -> None:
        """Take over what the cycle knows of its sandbox and of excluded paths."""
        self.url_expires_at = cycle.url_expires_at
        if cycle.target is not None:
            self.target = cycle.target
            self.totals.goes_to(self.target)
        self.acquired_sandbox = cycle.provider.acquired_sandbox
        self.left_out = cycle.snapshotter.left_out
        self.lingering = cycle.leftover_files
        self.agent = cycle.agent_status
        unsaved = cycle.work_saver.take_unsaved()
        if unsaved is not None:
            self.notifier.unsaved(unsaved)

    def succeeded(self, outcome: Outcome) -> None:
        """A sync succeeded: the last error is cleared."""
        if outcome.sync is not None:
            self.totals.syncs += 1
            self.totals.last_sync = outcome.sync
            size_bytes, took_s = outcome.sync.archive_bytes, outcome.sync.seconds
            _log.info("synced %s, %d bytes, in %.2f s", counted(outcome.files, "file"), size_bytes, took_s)
        self.totals.synced_once = True
        self.totals.last_error = None
        self.failures_in_row = 0
        self.recorder.succeeded(outcome)
        self.notifier.succeeded()
        if outcome.overwritten:
            self.notifier.saved(outcome.overwritten)

    def retrying(self, step: str, message: str, gives_up_in_s: float | None = None) -> None:
        """An attempt failed, and another one follows."""
        self._note_error(step, message)
        self.gives_up_at = None if gives_up_in_s is None else stamp(self.clock.wall_s() + gives_up_in_s)
        self.recorder.retrying(step, message)
        self.notifier.failed(message, needs_person=False)

    def failed(self, step: str, failure: SyncdError) -> None:
        """A sync failed: the message stays until the next success."""
        self._note_error(step, str(failure))
        self.gives_up_at = None
        self.recorder.failed(step, str(failure))
        self.notifier.failed(str(failure), needs_person=isinstance(failure, NeedsPerson))

    def _note_error(self, step: str, message: str) -> None:
        self.totals.failures += 1
        self.failures_in_row += 1
        self.totals.last_error = LastError(stamp(self.clock.wall_s()), step, one_line(message, 600))

    def warn(self, warnings: list[SyncWarning]) -> None:
        """Set the current warnings. New ones are logged, and those that are resolved."""
        unique = {warning.key: warning for warning in warnings}
        for key, warning in unique.items():
            if key not in self._logged:
                _log.warning("%s", warning)
        for key in sorted(self._logged - set(unique)):
            _log.info("resolved: %s", shown_path(key.partition(":")[2] or key))
        self._logged = set(unique)
        self.warnings = list(unique.values())

    def document(self, state: State) -> SandboxStatus:
        """The part of the document that is this sandbox's, in that state."""
        return SandboxStatus(
            name=self.name,
            id=self.target.sandbox_id,
            base_url=self.target.base_url,
            state=state,
            last_sync=self.totals.last_sync,
            last_error=self.totals.last_error,
            retry_at=None if state is State.STOPPED else self.retry_at,
            agent=self.agent,
        )


class SyncFailure(Struct, frozen=True):
    """A failure for the status and the history; `retry_after_s` is the wait that a server asked for."""

    step: ApiStep
    error: SyncdError
    retry_after_s: float = 0.0


def sync_failure(failure: Exception) -> SyncFailure:
    """The failure that this exception of a sync means, a defect of this program included."""
    match failure:
        case StepFailed():
            return SyncFailure(failure.step, failure.as_error(), failure.retry_after_s or 0.0)
        case WorkspaceError():
            return SyncFailure(ApiStep.WATCH, failure)
        case SyncdError():
            return SyncFailure(ApiStep.SNAPSHOT, failure)
        case OSError():
            error = TryLater(f"this machine refused something ({failure.strerror or failure})", "see `syncd check`")
            return SyncFailure(ApiStep.SNAPSHOT, error)
        case _:
            error = TryLater(f"internal error ({place_of(failure)})", "please report it")
            return SyncFailure(ApiStep.SNAPSHOT, error)


# A tree may hold thousands of unreadable files.
_MOST_WARNINGS = 100
# The state of the whole is the first of these that a sandbox is in.
_URGENCY = (
    State.HELD,
    State.RETRYING,
    State.PAUSED,
    State.INITIALIZING,
    State.UPLOADING,
    State.SNAPSHOTTING,
    State.DEBOUNCING,
    State.STARTING,
    State.WATCHING,
    State.STOPPED,
)


class WorkspaceStatus(Struct):
    """The status of a workspace with its sandboxes, main first.

    `folder` is that of the state. `pid` is the daemon's process; None for a command that syncs by itself, whose
    document is always that of no daemon.
    """

    workspace: str
    workspace_link: str
    folder: str
    systemd: SystemdNotifier
    totals: RunTotals
    pid: int | None
    config: str = ""
    refused: str = ""  # the reason why the daemon goes on with what it read before
    publishers: list[StatusPublisher] = field(default_factory=list)
    _started_at: str | None = None
    _ended_at: str | None = None  # the daemon before this command
    _written: bytes = b""
    _unwritten: str = ""  # the reason why the last one could not be written

    def recall(self) -> None:
        """Take over the last syncs of an earlier process, as far as they were to the same sandboxes.

        A command takes over all totals: its sync is not a run of its own.
        """
        before = read_document(self.folder) or self.document()
        self._started_at = self.totals.started_at or before.started_at
        self._ended_at = before.state_since if before.state is State.STOPPED else None
        known = {each.name: each for each in before.sandboxes or (_only_sandbox(before),)}
        for publisher in self.publishers:
            totals, status = publisher.totals, known.get(publisher.name)
            if publisher.target.sandbox_id:
                totals.goes_to(publisher.target)
            if status is None or not publisher.is_own(status):
                continue
            if self.pid is None:
                totals.last_error = status.last_error
            totals.last_sync = status.last_sync or totals.last_sync  # a command may have synced during a reload
        if self.pid is None and self.publishers and self.publishers[0].is_own(known.get(self.publishers[0].name)):
            first = self.publishers[0].totals  # only sums are known
            first.syncs, first.failures, first.uploaded_bytes = before.syncs, before.failures, before.uploaded_bytes

    def write(self) -> None:
        """Write the document if it changed. Where the state folder cannot be written, the daemon has to be asked."""
        document = self.document()
        content = encoded(document)
        try:
            if content != self._written:
                write_status(self.folder, content)
            self._written, self._unwritten = content, ""
        except OSError as failure:
            self._unwritten = failure.strerror or str(failure)
        self.systemd.status(self._line(document))

    def unwritten(self) -> Status | None:
        """Return the document, with a warning, if the last one could not be written."""
        if not self._unwritten:
            return None
        document = self.document()
        warning = f"the status cannot be written to {shown_path(self.folder)} ({self._unwritten}): see `syncd check`"
        return replace(document, warnings=(*document.warnings, warning))

    def ended(self) -> None:
        """The process ends: no plan and no state outlives it."""
        for publisher in self.publishers:
            if publisher.state is not State.STOPPED:
                publisher.enter(State.STOPPED)

    @property
    def most_urgent(self) -> StatusPublisher:
        """The publisher of the sandbox whose state is that of the whole."""
        return min(self.publishers, key=lambda each: _URGENCY.index(each.state))

    def warnings(self) -> list[SyncWarning]:
        """The warnings of all, of several with the sandbox's name; what is about the workspace is the same for each."""
        found: dict[str, SyncWarning] = {}
        for each in self.publishers:
            for warning in each.warnings:
                is_own = len(self.publishers) > 1 and warning.key in each.own_warnings
                remedy = for_sandbox(warning.remedy, each.name)
                named = warning._replace(what=f"{each.name}: {warning.what}", remedy=remedy) if is_own else warning
                found[str(named)] = named
        refused = [SyncWarning("configuration", not_read(self.refused), "")] if self.refused else []
        return [*refused, *found.values()]

    def document(self) -> Status:
        found = self.warnings()
        warnings = [one_line(str(warning), 600) for warning in found[:_MOST_WARNINGS]]
        if len(found) > _MOST_WARNINGS:
            warnings.append(f"and {len(found) - _MOST_WARNINGS} more: see `syncd ls --ignored` and the log")
        main, urgent = self.publishers[0], self.most_urgent
        running = self.pid is not None and urgent.state is not State.STOPPED
        totals = [each.totals for each in self.publishers]
        return Status(
            running=running,
            pid=self.pid if running else None,
            state=urgent.state if running else State.STOPPED,
            workspace=shown_path(self.workspace),
            sandbox=SandboxName(main.target.sandbox_id, main.target.base_url, main.target.region),
            sandboxes=tuple(each.document(each.state if running else State.STOPPED) for each in self.publishers),
            pending=any(each.pending for each in self.publishers),
            syncs=sum(each.syncs for each in totals),
            failures=sum(each.failures for each in totals),
            last_sync=main.totals.last_sync,
            last_error=main.totals.last_error,
            retry_at=urgent.retry_at if running else None,
            upload_url_expires_at=main.url_expires_at,
            warnings=tuple(warnings),
            progress=urgent.progress if running else None,
            state_since=self._ended_at if self.pid is None else urgent.state_since,
            started_at=self._started_at,
            daemon_version=__version__,
            uploaded_bytes=sum(each.uploaded_bytes for each in totals),
            left_out=main.left_out,
            sandbox_expires_at=ends_at(main.acquired_sandbox),
            lingering=main.lingering,
            agent=main.agent,
            workspace_link=shown_path(self.workspace_link),
            config=shown_path(self.config),
            failures_in_row=urgent.failures_in_row,
            gives_up_at=urgent.gives_up_at if running else None,
        )

    def _line(self, document: Status) -> str:
        urgent = self.most_urgent
        line = f"{urgent.state}, {document.syncs} syncs"
        if urgent.state in (State.HELD, State.RETRYING) and urgent.totals.last_error:
            line += f"; {urgent.totals.last_error.message}"
        if document.warnings:
            line += f"; {len(document.warnings)} warnings"
        return line


def _only_sandbox(before: Status) -> SandboxStatus:
    """The sandbox of a document that an earlier version wrote, which knew of one."""
    last, error = before.last_sync, before.last_error
    return SandboxStatus(MAIN, before.sandbox.id, before.sandbox.base_url, before.state, last, error)


def ends_at(acquired_sandbox: AcquiredSandbox | None) -> str | None:
    """The end of an acquired sandbox, as a time of the document."""
    return (
        None
        if acquired_sandbox is None or acquired_sandbox.ends_wall_s is None
        else stamp(acquired_sandbox.ends_wall_s)
    )
