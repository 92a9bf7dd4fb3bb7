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
    """How much of the upload that is under way has been sent."""

    sent_bytes: int
    total_bytes: int


class Status(Struct, frozen=True, kw_only=True):
    """The whole document. Times are UTC, `2026-11-24T13:20:11Z`."""

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
