"""What is known of the daemon, kept in one place and shown: status file, systemd's line, log, history, desktop."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from syncd import __version__
from syncd.core.clock import Clock, stamp
from syncd.core.errors import NeedsPerson, SyncdError
from syncd.core.text import one_line, shown_path
from syncd.core.warning import Problem
from syncd.remote.acquired_sandbox import Tenancy
from syncd.remote.target import Target
from syncd.report.desktop_notifier import Herald
from syncd.report.history_recorder import Chronicle
from syncd.report.speed import Speed
from syncd.report.status_store import StatusFile
from syncd.report.systemd_notify import ServiceManager
from syncd.sync.status_document import LastError, LastSync, Progress, SandboxName, State, Status
from syncd.sync.sync_cycle import Cycle, Outcome

_log = logging.getLogger("syncd")
# A tree of thousands of unreadable files is one trouble, not thousands.
_MOST_WARNINGS = 100
_PROGRESS_EVERY_S = 0.5


@dataclass
class Tally:
    """What outlives a reload of the configuration, as far as it is about what the configuration still names."""

    syncs: int = 0
    failures: int = 0
    last_sync: LastSync | None = None
    last_error: LastError | None = None
    synced_once: bool = False
    started_at: str | None = None
    uploaded_bytes: int = 0
    _named: tuple[str, str, str | None] | None = None
    _target: Target | None = None

    def is_for(self, workspace: str, base_url: str, sandbox_id: str | None) -> None:
        """A configuration names these; what was done for others is not claimed. None: a sandbox is acquired."""
        named = workspace, base_url, sandbox_id
        if self._named not in (None, named):
            self.syncs = self.failures = self.uploaded_bytes = 0
            self.last_sync = self.last_error = self._target = None
        self._named = named

    def goes_to(self, target: Target) -> None:
        """What is sent goes there; what arrived in another sandbox, or failed on its way, is not claimed."""
        if self._target is not None and not self._target.same_sandbox(target):
            self.last_sync = self.last_error = None
        self._target = target


@dataclass
class Board:
    """The status document in the making. Each change is written at once, unless it says nothing new."""

    workspace: str
    target: Target
    file: StatusFile
    manager: ServiceManager
    chronicle: Chronicle
    herald: Herald
    clock: Clock
    tally: Tally
    state: State = State.STARTING
    pending: bool = False
    retry_at: str | None = None
    url_expires_at: str | None = None
    progress: Progress | None = None
    problems: list[Problem] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    tenancy: Tenancy | None = None
    servers: dict[str, str] = field(default_factory=dict)
    lingering: int = 0
    _state_since: str | None = None
    _speed: Speed = field(default_factory=Speed)
    _sent_bytes: int = 0
    _shown_s: float = 0.0
    _named: set[str] = field(default_factory=set)

    def recall(self) -> None:
        """What an earlier process did last is still what was done last, if it was for the same sandbox."""
        if self.target.sandbox_id:
            self.tally.goes_to(self.target)
        before = self.file.last(self.document())
        if self.tally.last_sync is None and before.sandbox == self.document().sandbox:
            self.tally.last_sync = before.last_sync

    def show(self) -> None:
        """Write what changed. A state folder that cannot be written costs the status, not the sync."""
        with contextlib.suppress(OSError):
            self.file.write(self.document())
        self.manager.status(self._line())

    def enter(self, state: State) -> None:
        """A state begins, or goes on."""
        if state is not self.state or self._state_since is None:
            self._state_since = stamp(self.clock.wall_s())
            self.progress, self._speed = None, Speed()
        self.state = state
        self.chronicle.stage(state)
        if state is State.PAUSED:
            self.herald.paused()
        if state is not State.RETRYING:
            self.retry_at = None
        self.show()

    def ended(self) -> None:
        """Whatever ended it, no plan and no state outlives the process."""
        if self.state is not State.STOPPED:
            self.enter(State.STOPPED)

    def retry_in(self, wait_s: float) -> None:
        """So much is left of a wait. Said again each time it goes on, since the clock may have been set meanwhile."""
        self.retry_at = stamp(self.clock.wall_s() + wait_s)
        self.enter(State.RETRYING)

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> bool:
        """Packaging went on; whether that was shown, as it is twice a second at most."""
        return self._went_on(done_bytes, total_bytes, done_files, total_files)

    def sent(self, sent_bytes: int, total_bytes: int) -> bool:
        """The upload went on; whether that was shown, as it is twice a second at most."""
        self.tally.uploaded_bytes += max(0, sent_bytes - self._sent_bytes)
        self._sent_bytes = sent_bytes
        self.chronicle.sent(sent_bytes, total_bytes)
        return self._went_on(sent_bytes, total_bytes)

    def _went_on(self, done_bytes: int, total_bytes: int, *files: int) -> bool:
        now_s = self.clock.monotonic_s()
        self._speed = self._speed.observed(now_s, done_bytes)
        if now_s - self._shown_s < _PROGRESS_EVERY_S:
            return False
        self._shown_s = now_s
        rate, left_s = self._speed.bytes_per_s(now_s), self._speed.seconds_left(total_bytes, now_s)
        done_files, total_files = files or (None, None)
        self.progress = Progress(done_bytes, total_bytes, done_files, total_files, rate, left_s)
        self.show()
        return True

    @property
    def news_due_s(self) -> float | None:
        """The monotonic second from which on `look` has something to say on the desktop; None: nothing is ahead."""
        return None if self.state is State.UPLOADING else self.herald.due_s

    def look(self) -> None:
        """Time may have passed. While an upload goes on, what failed before it does so no longer, or not yet again."""
        if self.state is not State.UPLOADING:
            self.herald.look()

    def learn(self, cycle: Cycle, servers: Mapping[str, str]) -> None:
        """What a cycle knows by now of where it goes and of what stays home; `servers` are those of a named sandbox."""
        self.url_expires_at = cycle.url_expires_at
        if cycle.target is not None:
            self.target = cycle.target
            self.tally.goes_to(self.target)
        self.tenancy = cycle.lodging.tenancy
        self.servers = self.tenancy.servers if self.tenancy else dict(servers)
        self.left_out = cycle.photographer.left_out
        self.lingering = cycle.lingering_files

    def succeeded(self, outcome: Outcome) -> None:
        """A sync went well; nothing that failed before is of interest any more."""
        if outcome.sync is not None:
            self.tally.syncs += 1
            self.tally.last_sync = outcome.sync
            size_bytes, took_s = outcome.sync.archive_bytes, outcome.sync.seconds
            _log.info("synced %d files, %d bytes, in %.2f s", outcome.files, size_bytes, took_s)
        self.tally.synced_once = True
        self.tally.last_error = None
        self.chronicle.end(outcome)
        self.herald.well()

    def retrying(self, step: str, message: str) -> None:
        """An attempt at a step failed, and another one follows."""
        self._note_error(step, message)
        self.chronicle.retrying(step, message)
        self.herald.failed(message, needs_person=False)

    def failed(self, step: str, failure: SyncdError) -> None:
        """A sync failed; the message stays until the next success."""
        self._note_error(step, str(failure))
        self.chronicle.failed(step, str(failure))
        self.herald.failed(str(failure), needs_person=isinstance(failure, NeedsPerson))

    def _note_error(self, step: str, message: str) -> None:
        self.tally.failures += 1
        self.tally.last_error = LastError(stamp(self.clock.wall_s()), step, one_line(message, 600))

    def warn(self, problems: list[Problem]) -> None:
        """These are the troubles now. New ones are logged, mended ones too."""
        unique = {problem.key: problem for problem in problems}
        for key, problem in unique.items():
            if key not in self._named:
                _log.warning("%s", problem)
        for key in self._named - set(unique):
            _log.info("mended: %s", shown_path(key.partition(":")[2] or key))
        self._named = set(unique)
        self.problems = list(unique.values())

    def document(self) -> Status:
        """The document as it is to be read now."""
        warnings = [one_line(str(problem), 600) for problem in self.problems[:_MOST_WARNINGS]]
        if len(self.problems) > _MOST_WARNINGS:
            warnings.append(f"and {len(self.problems) - _MOST_WARNINGS} more: see `syncd ls --ignored` and the log")
        running = self.state is not State.STOPPED
        return Status(
            running=running,
            pid=os.getpid() if running else None,
            state=self.state,
            workspace=shown_path(self.workspace),
            sandbox=SandboxName(self.target.sandbox_id, self.target.base_url, self.target.region),
            pending=self.pending,
            syncs=self.tally.syncs,
            failures=self.tally.failures,
            last_sync=self.tally.last_sync,
            last_error=self.tally.last_error,
            retry_at=self.retry_at,
            upload_url_expires_at=self.url_expires_at,
            warnings=tuple(warnings),
            progress=self.progress,
            state_since=self._state_since,
            started_at=self.tally.started_at,
            daemon_version=__version__,
            uploaded_bytes=self.tally.uploaded_bytes,
            left_out=self.left_out,
            sandbox_expires_at=ends_at(self.tenancy),
            mcp_servers=self.servers,
            lingering=self.lingering,
        )

    def _line(self) -> str:
        line = f"{self.state}, {self.tally.syncs} syncs"
        if self.state in (State.HELD, State.RETRYING) and self.tally.last_error:
            line += f"; {self.tally.last_error.message}"
        if self.problems:
            line += f"; {len(self.problems)} warnings"
        return line


def ends_at(tenancy: Tenancy | None) -> str | None:
    """When an acquired sandbox ends, for people and scripts."""
    return None if tenancy is None or tenancy.ends_wall_s is None else stamp(tenancy.ends_wall_s)
