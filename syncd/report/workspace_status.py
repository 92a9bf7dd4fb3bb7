"""The status document of a workspace: what the publishers of its sandboxes know, written at each change."""

from __future__ import annotations

from msgspec import Struct, field

from syncd import __version__
from syncd.core.choices import Managed
from syncd.core.clock import stamp
from syncd.core.errors import SyncWarning
from syncd.core.settings import MAIN
from syncd.core.text import one_line, shown_path
from syncd.remote.target import AcquiredSandbox
from syncd.report.status_publisher import RunTotals, StatusPublisher
from syncd.report.status_store import encoded, read_last, write_status
from syncd.report.systemd_notify import SystemdNotifier
from syncd.sync.status_document import SandboxName, SandboxStatus, State, Status

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
    managed: Managed | None
    config: str = ""
    publishers: list[StatusPublisher] = field(default_factory=list)
    _started_at: str | None = None
    _written: bytes = b""
    _is_written: bool = True

    def recall(self) -> None:
        """Take over the last syncs of an earlier process, as far as they were to the same sandboxes.

        A command takes over all totals: its sync is not a run of its own.
        """
        before = read_last(self.folder, self.document())
        self._started_at = self.totals.started_at or before.started_at
        known = {each.name: each for each in before.sandboxes or (_only_sandbox(before),)}
        for publisher in self.publishers:
            totals, status = publisher.totals, known.get(publisher.name)
            if publisher.target.sandbox_id:
                totals.goes_to(publisher.target)
            if status is None or not publisher.is_own(status):
                continue
            if self.pid is None:
                totals.last_error = status.last_error
            if self.pid is None or totals.last_sync is None:
                totals.last_sync = status.last_sync
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
            self._written, self._is_written = content, True
        except OSError:
            self._is_written = False
        self.systemd.status(self._line(document))

    def unwritten(self) -> Status | None:
        """Return the document, if the last one could not be written."""
        return None if self._is_written else self.document()

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
        """The warnings of all; what is about the workspace is the same for each sandbox."""
        return [*{str(warning): warning for each in self.publishers for warning in each.warnings}.values()]

    def document(self) -> Status:
        """The document with the current values."""
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
            state_since=urgent.state_since,
            started_at=self._started_at,
            daemon_version=__version__,
            uploaded_bytes=sum(each.uploaded_bytes for each in totals),
            left_out=main.left_out,
            sandbox_expires_at=ends_at(main.acquired_sandbox),
            mcp_servers=main.servers,
            lingering=main.lingering,
            agent=main.agent,
            managed=self.managed,
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
