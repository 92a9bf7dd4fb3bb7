"""The status document, which `syncd status --json` prints. Scripts rely on its names."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct, structs, to_builtins
from msgspec.structs import replace

from syncd.remote.target import Target
from syncd.sandbox.setup_rules import SetupState, SetupStatus

VERSION = 1


class State(StrEnum):
    """The daemon's states: that of all sandboxes is the first of these that one is in."""

    HELD = "held"
    RETRYING = "retrying"
    PAUSED = "paused"
    INITIALIZING = "initializing"
    UPLOADING = "uploading"
    SNAPSHOTTING = "snapshotting"
    DEBOUNCING = "debouncing"
    STARTING = "starting"
    WATCHING = "watching"
    STOPPED = "stopped"

    @property
    def word(self) -> str:
        """The state for people."""
        return _WORDS.get(self, str(self))


_WORDS = {
    State.WATCHING: "waiting",
    State.DEBOUNCING: "waiting",
    State.SNAPSHOTTING: "packing",
    State.INITIALIZING: "unpacking",
    State.STOPPED: "not running",
}


class LastSync(Struct, frozen=True):
    """The last snapshot that was initialized. `seconds` counts from the start of the scan to the API's answer."""

    finished_at: str
    files: int
    archive_bytes: int
    sha256: str
    seconds: float


class LastError(Struct, frozen=True):
    """The last failure, until the next success."""

    at: str
    step: str
    message: str


# A new connection is still finding its speed, and its progress comes in steps.
_LEAST_S = 1.0


class Progress(Struct, frozen=True):
    """The progress of the stage that `state` names: packaging counts files and their bytes, uploading the bytes sent.

    `bytes_per_second` is the average since the stage began, and `seconds_left` what is left at that speed; null at
    first.
    """

    done_bytes: int
    total_bytes: int
    done_files: int | None = None
    total_files: int | None = None
    bytes_per_second: float | None = None
    seconds_left: float | None = None

    @property
    def is_upload(self) -> bool:
        return self.done_files is None

    def after(self, seconds: float) -> Progress:
        """Return it with the speed since the stage began, so long ago: none at first, which fills buffers."""
        if seconds < _LEAST_S:
            return self
        left_bytes, rate = max(0, self.total_bytes - self.done_bytes), self.done_bytes / seconds
        return replace(self, bytes_per_second=rate, seconds_left=left_bytes / rate if rate else None)


class AgentStatus(Struct, frozen=True):
    """The agent's side. `changed` counts the paths that were changed there, as of the last look at each.

    `saved` counts the versions that were saved at home, `held` are the first paths that both sides changed, of
    `held_count` in all, and `looked_at` is the time of the last look, by a sync or a command. With
    `sandbox.follow_seconds`, `followed_at` is the time of the last look that followed, and `changed_at` when one found
    a change last.
    """

    saved: int = 0
    held: tuple[str, ...] = ()
    held_count: int = 0
    looked_at: str | None = None
    changed: int = 0
    followed_at: str | None = None
    changed_at: str | None = None


class SandboxStatus(Struct, frozen=True, kw_only=True):
    """One sandbox of the workspace; `name` is that of the configuration.

    `left_out` counts excluded paths by the source of the rule, and `lingering` deleted files that are still there.
    `failures_in_row` counts failed attempts since the last success.
    """

    name: str
    id: str
    base_url: str
    region: str = ""
    state: State = State.STARTING
    state_since: str | None = None
    pending: bool = False
    syncs: int = 0
    failures: int = 0
    failures_in_row: int = 0
    uploaded_bytes: int = 0
    last_sync: LastSync | None = None
    last_error: LastError | None = None
    retry_at: str | None = None
    progress: Progress | None = None
    upload_url_expires_at: str | None = None
    sandbox_expires_at: str | None = None
    left_out: dict[str, int] = {}
    lingering: int = 0
    agent: AgentStatus = AgentStatus()
    setup: SetupStatus = SetupStatus()

    def at(self, target: Target) -> SandboxStatus:
        """Return it as that of this sandbox: the last sync and the last error of another one are not its own."""
        status = replace(self, id=target.sandbox_id, base_url=target.base_url, region=target.region)
        if self.id and not status.is_of(self):
            status = replace(status, last_sync=None, last_error=None)
        return status

    def is_of(self, other: SandboxStatus) -> bool:
        """True if both are of one sandbox."""
        return (self.id, self.base_url) == (other.id, other.base_url)

    def may_be(self, recorded: SandboxStatus) -> bool:
        """True if that was recorded of this sandbox; one that is yet to be acquired has no id."""
        return self.base_url == recorded.base_url and self.id in ("", recorded.id)

    def stopped(self) -> SandboxStatus:
        """Return it as of after its process: its state and its plans ended with that, at an unknown time if killed."""
        return replace(
            self,
            state=State.STOPPED,
            state_since=self.state_since if self.state is State.STOPPED else None,
            retry_at=None,
            failures_in_row=0,
            progress=None,
            setup=SetupStatus() if self.setup.state is SetupState.RUNNING else self.setup,
        )


class Status(Struct, frozen=True, kw_only=True):
    """The status of a workspace, with its sandboxes, main first. Times are UTC, `2026-11-24T13:20:11Z`.

    `responding` is set by the reader: false for a daemon that did not answer in time, null if none runs. The daemon
    sets the other fields. `workspace_link` is empty where no link leads to the workspace. `config` is the configuration
    file.
    """

    version: int = VERSION
    running: bool
    pid: int | None
    workspace: str
    sandboxes: tuple[SandboxStatus, ...]
    warnings: tuple[str, ...] = ()
    started_at: str | None = None
    daemon_version: str | None = None
    responding: bool | None = None
    workspace_link: str = ""
    config: str = ""

    @property
    def main(self) -> SandboxStatus:
        return self.sandboxes[0]

    @property
    def urgent(self) -> SandboxStatus:
        """The sandbox whose state is that of all."""
        return min(self.sandboxes, key=lambda each: list(State).index(each.state))

    @property
    def state(self) -> State:
        return self.urgent.state

    @property
    def pending(self) -> bool:
        return any(each.pending for each in self.sandboxes)

    @property
    def in_sync(self) -> bool:
        """True if a daemon runs and the sandboxes have all changes, but for what the warnings name."""
        return self.running and self.responding is not False and self.state is State.WATCHING and not self.pending

    def total(self, name: str) -> int:
        """The sum of this field of the sandboxes."""
        return sum(getattr(each, name) for each in self.sandboxes)

    def document(self) -> dict[str, Any]:
        """The whole document: at its top is what goes for all sandboxes, for the most urgent one, and for main."""

        def of(sandbox: SandboxStatus, *names: str) -> dict[str, Any]:
            return {name: getattr(sandbox, name) for name in names}

        main, urgent = self.main, self.urgent
        top = {
            **{name: getattr(self, name) for name in ("version", "running", "pid", "state", "workspace")},
            "sandbox": of(main, "id", "base_url", "region"),
            "pending": self.pending,
            **{name: self.total(name) for name in ("syncs", "failures", "uploaded_bytes")},
            **of(main, "last_sync", "last_error"),
            **of(urgent, "retry_at", "failures_in_row", "state_since", "progress"),
            **of(main, "upload_url_expires_at", "sandbox_expires_at", "left_out", "lingering", "agent", "setup"),
        }
        document: dict[str, Any] = to_builtins({**top, **structs.asdict(self)})
        return document
