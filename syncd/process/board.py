"""What is known of the daemon, kept in one place and shown in three: the status file, systemd's line, the log."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass, field

from syncd.base.clock import Clock, stamp
from syncd.base.problem import Problem
from syncd.base.text import one_line, shown_path
from syncd.effects.status_file import StatusFile
from syncd.policy.status import LastError, LastSync, Progress, SandboxName, State, Status
from syncd.policy.target import Target
from syncd.process.service_manager import ServiceManager

_log = logging.getLogger("syncd")
# A tree of thousands of unreadable files is one trouble, not thousands.
_MOST_WARNINGS = 100
_PROGRESS_EVERY_S = 0.5


@dataclass
class Tally:
    """What outlives a reload of the configuration."""

    syncs: int = 0
    failures: int = 0
    last_sync: LastSync | None = None
    last_error: LastError | None = None
    synced_once: bool = False


@dataclass
class Board:
    """The status document in the making. Each change is written at once, unless it says nothing new."""

    workspace: str
    target: Target
    file: StatusFile
    manager: ServiceManager
    clock: Clock
    tally: Tally
    state: State = State.STARTING
    pending: bool = False
    retry_at: str | None = None
    url_expires_at: str | None = None
    progress: Progress | None = None
    problems: list[Problem] = field(default_factory=list)
    _shown_s: float = 0.0
    _named: set[str] = field(default_factory=set)

    def recall(self) -> None:
        """What an earlier process did last is still what was done last, if it was for the same sandbox."""
        before = self.file.last(self.document())
        if self.tally.last_sync is None and before.sandbox == self.document().sandbox:
            self.tally.last_sync = before.last_sync

    def show(self) -> None:
        """Write what changed. A state folder that cannot be written costs the status, not the sync."""
        with contextlib.suppress(OSError):
            self.file.write(self.document())
        self.manager.status(self._line())

    def enter(self, state: State) -> None:
        """Another state begins."""
        self.state = state
        if state is not State.RETRYING:
            self.retry_at = None
        if state is not State.UPLOADING:
            self.progress = None
        self.show()

    def retry_in(self, wait_s: float) -> None:
        """So much is left of a wait. Said again each time it goes on, since the clock may have been set meanwhile."""
        self.retry_at = stamp(self.clock.wall_s() + wait_s)
        self.enter(State.RETRYING)

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        """The upload went on; shown at most twice a second."""
        self.progress = Progress(sent_bytes, total_bytes)
        now_s = self.clock.monotonic_s()
        if now_s - self._shown_s >= _PROGRESS_EVERY_S:
            self._shown_s = now_s
            self.show()

    def failed(self, step: str, message: str) -> None:
        """A step failed; the message stays until the next success."""
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
        )

    def _line(self) -> str:
        line = f"{self.state}, {self.tally.syncs} syncs"
        if self.state in (State.HELD, State.RETRYING) and self.tally.last_error:
            line += f"; {self.tally.last_error.message}"
        if self.problems:
            line += f"; {len(self.problems)} warnings"
        return line
