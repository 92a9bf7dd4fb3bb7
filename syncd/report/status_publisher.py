"""Keeps the status of each sandbox and publishes it: log, desktop, and the document of the workspace."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from syncd import __version__
from syncd.core.clock import Clock, stamp
from syncd.core.durable_file import file_stamp
from syncd.core.errors import NeedsPerson, SyncdError, SyncWarning, TryLater, WorkspaceError
from syncd.core.settings import Config
from syncd.core.text import counted, for_sandbox, one_line, redacted, shown_path
from syncd.remote.failure import ApiStep, StepFailed
from syncd.report.desktop_notifier import DesktopNotifier
from syncd.report.logs import place_of
from syncd.report.status_store import encoded, read_document, write_status
from syncd.report.systemd_notify import SystemdNotifier
from syncd.sync.outcome import Outcome
from syncd.sync.status_document import (
    LastError,
    Progress,
    SandboxStatus,
    State,
    Status,
)
from syncd.sync.work_saver import UNSAVED

_log = logging.getLogger("syncd")
_PROGRESS_EVERY_S = 0.5


# What is told of a whole run.
_TOTALS = ("syncs", "failures", "uploaded_bytes", "last_sync", "last_error")


class RunFacts(Struct):
    """The facts of a run that outlive a reload.

    `pid` is the daemon's process; None for a command that syncs by itself, whose document is always that of no daemon.
    """

    pid: int | None = None
    started_at: str | None = None
    synced_once: bool = False
    is_reloaded: bool = False  # the document before is its own
    refused: str = ""  # the reason why the daemon goes on with the configuration that it read before
    config_stamp: tuple[int, ...] | None = None  # of the configuration's file, as it was before it was read last
    key_stamps: Mapping[str, tuple[int, ...] | None] = {}  # of each key file, as it was before it was read last


class StatusPublisher(Struct):
    """Publishes the status of the syncs to one sandbox: `now` is one value, which each change swaps for another."""

    now: SandboxStatus
    publish: Callable[[], None]
    notifier: DesktopNotifier
    clock: Clock
    warnings: list[SyncWarning] = field(default_factory=list)
    own_warnings: set[str] = field(default_factory=set)  # the keys of those that are not about the workspace
    _began_s: float = 0.0  # the stage whose progress is shown
    _done_bytes: int = 0
    _shown_s: float = 0.0

    def note(self, **changes: Any) -> None:
        """Change these fields of the status, which is published later."""
        self.now = replace(self.now, **changes)

    def enter(self, state: State, retry_s: float = inf) -> None:
        """Publish this state, and the second of the next try: each time that its wait goes on, as clocks may be set."""
        if state is not self.now.state or self.now.state_since is None:
            self.note(state_since=stamp(self.clock.wall_s()), progress=None)
            self._began_s = self.clock.monotonic_s()
        if state is State.PAUSED:
            self.notifier.paused()
        if state is not State.RETRYING:
            self.note(retry_at=None)
        elif retry_s < inf:
            self.note(retry_at=stamp(self.clock.wall_s() + (retry_s - self.clock.monotonic_s())))
        self.note(state=state)
        self.publish()

    def progressed(self, progress: Progress) -> bool:
        """A stage made progress. True if it was published, which happens twice a second at most."""
        now_s, more_bytes = self.clock.monotonic_s(), progress.done_bytes - self._done_bytes
        self._done_bytes = progress.done_bytes
        if more_bytes < 0:  # another stage, or an upload that is repeated, begins with 0
            self._began_s = now_s
        elif progress.is_upload:
            self.note(uploaded_bytes=self.now.uploaded_bytes + more_bytes)
        if now_s - self._shown_s < _PROGRESS_EVERY_S:
            return False
        self._shown_s = now_s
        self.note(progress=progress.after(now_s - self._began_s))
        self.publish()
        return True

    def succeeded(self, outcome: Outcome) -> None:
        """A sync succeeded: the last error is cleared."""
        if outcome.sync is not None:
            self.note(syncs=self.now.syncs + 1, last_sync=outcome.sync)
            size_bytes, took_s = outcome.sync.archive_bytes, outcome.sync.seconds
            _log.info("synced %s, %d bytes, in %.2f s", counted(outcome.files, "file"), size_bytes, took_s)
        self.note(last_error=None, failures_in_row=0)
        self.notifier.succeeded()
        if outcome.overwritten:
            self.notifier.saved(outcome.overwritten)

    def failed(self, step: str, failure: Exception) -> None:
        """A sync, or an attempt of one, failed: the message stays until the next success."""
        error = LastError(stamp(self.clock.wall_s()), step, one_line(redacted(str(failure)), 600))
        self.note(failures=self.now.failures + 1, failures_in_row=self.now.failures_in_row + 1, last_error=error)
        self.notifier.failed(str(failure), needs_person=isinstance(failure, NeedsPerson))

    def warn(self, warnings: list[SyncWarning]) -> None:
        """Set the current warnings. New ones are logged, and those that are resolved."""
        before, unique = ({warning.key: warning for warning in each} for each in (self.warnings, warnings))
        for key, warning in unique.items():
            is_lost = key == UNSAVED and warning != before.get(key)  # of another sandbox than the one before
            if is_lost:
                self.notifier.unsaved(warning.what)
            if is_lost or key not in before:
                _log.warning("%s", warning)
        for key, warning in before.items():
            if key not in unique:
                _log.info("resolved: %s", warning.what)
        self.warnings = list(unique.values())


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


class WorkspaceStatus:
    """The status of a workspace with its sandboxes, main first."""

    def __init__(
        self,
        config: Config,
        folder: str,
        run: RunFacts,
        *,
        clock: Clock,
        environ: Mapping[str, str],
        sandboxes: Sequence[SandboxStatus],
    ) -> None:
        """`folder` is that of the state. That of a command tells no service manager and no desktop."""
        told = environ if run.pid is not None else {}
        on_desktop = told if config.notifications.desktop else {}
        self.config = config
        self.folder = folder
        self.run = run
        self.systemd = SystemdNotifier(told, clock, os.getpid())
        self.publishers: list[StatusPublisher] = []
        for each in sandboxes:
            notifier = DesktopNotifier(
                config.workspace.path, on_desktop, clock, each.name if len(sandboxes) > 1 else ""
            )
            self.publishers.append(StatusPublisher(each, self.write, notifier, clock))
        self._ended_at: str | None = None  # the daemon before this command
        self._written = b""
        self._unwritten = ""  # the reason why the last one could not be written

    def recall(self) -> None:
        """Take over the last syncs of an earlier process, as far as they were to the same sandboxes.

        A command takes over all totals, as its sync is not a run of its own, and so does a run after a reload. It also
        takes over what is pending, for one that does not sync (`setup`); a run has to look first.
        """
        before = read_document(self.folder)
        if before is None:
            return
        is_same_run = self.run.pid is None or self.run.is_reloaded
        self.run.started_at = self.run.started_at or before.started_at
        self._ended_at = before.urgent.state_since if before.state is State.STOPPED else None
        known = {each.name: each for each in before.sandboxes}
        for publisher in self.publishers:
            now, status = publisher.now, known.get(publisher.now.name)
            # A command may have synced during a reload.
            if status is not None and now.may_be(status) and (now.id or is_same_run):
                taken = ["id", *_TOTALS] if is_same_run else ["last_sync"]
                if self.run.pid is None:
                    taken.append("pending")
                publisher.note(**{name: getattr(status, name) for name in taken}, setup=status.stopped().setup)

    def write(self) -> None:
        """Write the document if it changed. Where the state folder cannot be written, the daemon has to be asked."""
        status = self.status()
        content = encoded(status)
        try:
            if content != self._written:
                write_status(self.folder, content)
            self._written, self._unwritten = content, ""
        except OSError as failure:
            self._unwritten = failure.strerror or str(failure)
        self.systemd.status(_line(status))

    def unwritten(self) -> Status | None:
        """Return the document, with a warning, if the last one could not be written."""
        if not self._unwritten:
            return None
        status = self.status()
        warning = f"the status cannot be written to {shown_path(self.folder)} ({self._unwritten}): see `syncd check`"
        return replace(status, warnings=(*status.warnings, warning))

    def ended(self) -> None:
        """The process ends, or reads its configuration anew: no plan and no state outlives that."""
        self.run.is_reloaded = True
        for publisher in self.publishers:
            if publisher.now.state is not State.STOPPED:
                publisher.enter(State.STOPPED)

    def warnings(self) -> list[SyncWarning]:
        """The warnings of all, of several with the sandbox's name; what is about the workspace is the same for each."""
        found: dict[str, SyncWarning] = {}
        for each in self.publishers:
            for warning in each.warnings:
                is_own = len(self.publishers) > 1 and warning.key in each.own_warnings
                remedy = for_sandbox(warning.remedy, each.now.name)
                named = warning._replace(what=f"{each.now.name}: {warning.what}", remedy=remedy) if is_own else warning
                found[str(named)] = named
        read, refused = self.run.config_stamp, self.run.refused
        if read != file_stamp(self.config.file) and (read is not None or refused):
            what, remedy = "the configuration was changed since the daemon read it", "run `syncd reload`"
        elif refused:
            what, remedy = one_line(f"the daemon goes on with what it read before; {refused}", 600), ""
        else:
            return list(found.values())
        return [SyncWarning("configuration", what, remedy), *found.values()]

    def status(self) -> Status:
        found = self.warnings()
        warnings = [one_line(str(warning), 600) for warning in found[:_MOST_WARNINGS]]
        if len(found) > _MOST_WARNINGS:
            warnings.append(f"and {len(found) - _MOST_WARNINGS} more: see `syncd ls --excluded` and the log")
        status = Status(
            running=self.run.pid is not None,
            pid=self.run.pid,
            workspace=shown_path(self.config.workspace.path),
            sandboxes=tuple(each.now for each in self.publishers),
            warnings=tuple(warnings),
            started_at=self.run.started_at,
            daemon_version=__version__,
            workspace_link=shown_path(self.config.workspace_link),
            config=shown_path(self.config.file),
        )
        if status.running and status.state is not State.STOPPED:
            return status
        stopped = [each.stopped() for each in status.sandboxes]
        if self.run.pid is None:
            stopped = [replace(each, state_since=self._ended_at) for each in stopped]
        return replace(status, running=False, pid=None, sandboxes=tuple(stopped))


def _line(status: Status) -> str:
    """Return a status in a line, for systemd."""
    urgent = status.urgent
    state = "in sync" if status.in_sync else urgent.state.word
    line = f"{state}, {counted(status.total('syncs'), 'sync')}"
    if urgent.state in (State.HELD, State.RETRYING) and urgent.last_error:
        line += f"; {urgent.last_error.message}"
    return f"{line}; {counted(len(status.warnings), 'warning')}" if status.warnings else line
