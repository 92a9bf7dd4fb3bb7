"""The status document: what `syncd status --json` prints, typed. Its names are a promise to scripts."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

VERSION = 1


class State(StrEnum):
    """What the daemon is doing."""

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
    """Where it goes."""

    id: str
    base_url: str
    region: str


class LastSync(Struct, frozen=True):
    """The last snapshot that was initialized. `seconds` is from the scan's start to the API's answer."""

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
    """How far the stage that `state` names has come: packaging counts files and what is in them, uploading bytes sent.

    `bytes_per_second` and `seconds_left` are as measured in the last seconds; null until something was.
    """

    done_bytes: int
    total_bytes: int
    done_files: int | None = None
    total_files: int | None = None
    bytes_per_second: float | None = None
    seconds_left: float | None = None


class Status(Struct, frozen=True, kw_only=True):
    """The whole document. Times are UTC, `2026-11-24T13:20:11Z`.

    `responding` is what the reader found: false for a daemon that did not answer in time; null where none runs. The
    other fields are the daemon's own. `left_out` counts what stays home, by who says so; `mcp_servers` has URLs;
    `lingering` counts deleted files that are still in the sandbox.
    """

    version: int = VERSION
    running: bool
    pid: int | None
    state: State
    workspace: str
    sandbox: SandboxName
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
    mcp_servers: dict[str, str] = {}
    lingering: int = 0
