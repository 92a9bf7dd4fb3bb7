"""The status document, which `syncd status --json` prints. Scripts rely on its names."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from syncd.core.text import one_line

VERSION = 1


class State(StrEnum):
    """The daemon's states."""

    STARTING = "starting"
    WATCHING = "watching"
    DEBOUNCING = "debouncing"
    SNAPSHOTTING = "snapshotting"
    UPLOADING = "uploading"
    INITIALIZING = "initializing"
    RETRYING = "retrying"
    PAUSED = "paused"
    HELD = "held"
    STOPPED = "stopped"


class SandboxName(Struct, frozen=True):
    """The sandbox that the workspace is synced to."""

    id: str
    base_url: str
    region: str


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


class Progress(Struct, frozen=True):
    """The progress of the stage that `state` names: packaging counts files and their bytes, uploading the bytes sent.

    `bytes_per_second` and `seconds_left` are measured over the last seconds, and null before the first measurement.
    """

    done_bytes: int
    total_bytes: int
    done_files: int | None = None
    total_files: int | None = None
    bytes_per_second: float | None = None
    seconds_left: float | None = None


# An agent that changed nothing for so long has done its work, or waits for somebody.
QUIET_S = 60.0


class AgentStatus(Struct, frozen=True):
    """The agent's side. `changed` counts the paths that were changed there, as of the last look at each.

    `saved` counts the versions that were saved at home, `held` are the first paths that both sides changed, of
    `held_count` in all, and `looked_at` is the time of the last look, by a sync or a command. With
    `sandbox.follow_seconds`, `followed_at` is the time of the last look that followed, `changed_at` when one found a
    change last, and `follow_requests` counts the requests that these looks took in this run.
    """

    saved: int = 0
    held: tuple[str, ...] = ()
    held_count: int = 0
    looked_at: str | None = None
    changed: int = 0
    followed_at: str | None = None
    changed_at: str | None = None
    follow_requests: int = 0


class SandboxStatus(Struct, frozen=True):
    """One sandbox of the workspace; `name` is that of the configuration."""

    name: str
    id: str
    base_url: str
    state: State
    last_sync: LastSync | None = None
    last_error: LastError | None = None
    retry_at: str | None = None
    agent: AgentStatus = AgentStatus()


class Status(Struct, frozen=True, kw_only=True):
    """The whole document. Times are UTC, `2026-11-24T13:20:11Z`.

    `responding` is set by the reader: false for a daemon that did not answer in time, null if none runs. The daemon
    sets the other fields. `sandbox`, and `last_sync` to `agent`, are those of the first of `sandboxes`; `state` is the
    most urgent one, and `pending`, `syncs` and `failures` are of all. `left_out` counts excluded paths by the source of
    the rule, and `lingering` counts deleted files that are still in the sandbox. `workspace_link` is empty where no
    link leads to the workspace. `config` is the configuration file. Of the most urgent sandbox, `failures_in_row`
    counts failed attempts since the last success, and `gives_up_at` is when this sync's retries end: then the daemon
    begins another one.
    """

    version: int = VERSION
    running: bool
    pid: int | None
    state: State
    workspace: str
    sandbox: SandboxName
    sandboxes: tuple[SandboxStatus, ...] = ()
    pending: bool = False
    syncs: int = 0
    failures: int = 0
    last_sync: LastSync | None = None
    last_error: LastError | None = None
    retry_at: str | None = None
    upload_url_expires_at: str | None = None
    warnings: tuple[str, ...] = ()
    progress: Progress | None = None
    state_since: str | None = None
    started_at: str | None = None
    daemon_version: str | None = None
    responding: bool | None = None
    uploaded_bytes: int = 0
    left_out: dict[str, int] = {}
    sandbox_expires_at: str | None = None
    lingering: int = 0
    agent: AgentStatus = AgentStatus()
    workspace_link: str = ""
    config: str = ""
    failures_in_row: int = 0
    gives_up_at: str | None = None

    @property
    def in_sync(self) -> bool:
        """True if a daemon runs and the sandboxes have all changes, but for what the warnings name."""
        return self.running and self.responding is not False and self.state is State.WATCHING and not self.pending


def not_read(reason: object) -> str:
    """Return the warning of a configuration that is refused for this reason."""
    return one_line(f"the daemon goes on with what it read before; {reason}", 600)
