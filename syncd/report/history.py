"""The history of a workspace: the record of a sync, its table in the state's database, and its writer.

Recorded is a sync that was requested, that was initialized, or that failed, or did not, as the one before it: a network
that is down all day is one record, and a rescan that found nothing is none.
"""

from __future__ import annotations

import contextlib
import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from zlib import crc32

import msgspec
from msgspec import Meta, Struct

from syncd.core.clock import Clock, utc
from syncd.core.settings import MAIN
from syncd.core.text import one_line
from syncd.store.state_db import StateDb
from syncd.sync.outcome import ChangeCounts, Outcome, SyncReason
from syncd.sync.status_document import SandboxStatus

_NUMBER = re.compile(r"\d+")

MOST = 5_000
"""So many records are kept, the newest."""

Time = Annotated[datetime, Meta(tz=True)]


class SyncEnding(StrEnum):
    """The end of a sync; `superseded`: it gave way to a newer change or a command."""

    INITIALIZED = "initialized"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    STOPPED = "stopped"


class ErrorRecord(Struct, frozen=True):
    """The last failure in a sync, even if a later attempt succeeded."""

    step: str
    message: str


class SyncRecord(Struct, frozen=True, kw_only=True):
    """One sync, which ended `at`. Scripts rely on the names; `why` and `outcome` may get further values later.

    `files` and `change` are null where the sync did not get so far, or it is not known what the sandbox held.
    `sent_bytes` is the size of the archive that arrived; where none did, what was uploaded. `failures_before`: syncs
    that failed in a row right before this one, recorded or not, since the process began.
    """

    version: int = 1
    at: Time
    why: str
    outcome: str
    files: int | None = None
    change: ChangeCounts | None = None
    sent_bytes: int = 0
    attempts: int = 1
    seconds: float = 0.0
    sandbox: str = MAIN
    sandbox_id: str = ""
    error: ErrorRecord | None = None
    failures_before: int = 0

    @property
    def is_success(self) -> bool:
        """True if the sandbox holds all."""
        return self.outcome in (SyncEnding.INITIALIZED, SyncEnding.UNCHANGED)

    @property
    def is_failure(self) -> bool:
        """True if it failed, or was superseded or stopped in the wait after a failure."""
        return self.error is not None and not self.is_success


def should_record(record: SyncRecord, before: SyncRecord | None) -> bool:
    """True if it is recorded; `before` is the last one that succeeded or failed, if any."""
    if record.why == SyncReason.ORDER.value and record.outcome != SyncEnding.SUPERSEDED:
        return True
    is_other = (record.is_success or record.is_failure) and _failure(record) != _failure(before)
    return record.outcome == SyncEnding.INITIALIZED or is_other


def _failure(record: SyncRecord | None) -> str:
    """The kind of a sync's failure: its step and message without their numbers; empty if it did not fail."""
    if record is None or record.error is None or record.is_success:
        return ""
    return _NUMBER.sub("0", f"{record.error.step}: {record.error.message}")


def append(db: StateDb, record: SyncRecord) -> None:
    """Add a record to the database of a workspace, and remove the oldest of too many. Raises `OSError`."""
    value = msgspec.msgpack.encode(record)
    with db.transaction():
        db.change("INSERT INTO history (value, checksum) VALUES (?, ?)", value, crc32(value))
        db.change("DELETE FROM history WHERE number <= (SELECT max(number) FROM history) - ?", MOST)


def records(db: StateDb) -> list[SyncRecord]:
    """Return the records, the newest last; a damaged one counts as missing. Raises `OSError`."""
    found = []
    for value, checksum in db.rows("SELECT value, checksum FROM history ORDER BY number"):
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            if isinstance(value, bytes) and crc32(value) == checksum:
                found.append(msgspec.msgpack.decode(value, type=SyncRecord))
    return found


class HistoryRecorder:
    """Records the syncs to one sandbox. A history that cannot be written costs the record, never the sync."""

    def __init__(self, clock: Clock, db: StateDb) -> None:
        self._clock = clock
        self._db = db
        self._before: SyncRecord | None = None  # the last that succeeded or failed
        # The sync under way: why and when it began, in monotonic seconds, and the status then.
        self._begun: tuple[str, float, SandboxStatus] | None = None

    def begin(self, why: str, status: SandboxStatus) -> None:
        """A sync begins; `why` is the value of a `SyncReason`."""
        self._begun = why, self._clock.monotonic_s(), status

    def end(self, ending: SyncEnding, status: SandboxStatus, outcome: Outcome | None = None) -> None:
        """The sync under way, if there is one, ended so; the last error is still in the status."""
        if self._begun is None:
            return
        (why, began_s, then), before = self._begun, self._before
        self._begun = None
        failures, error = status.failures - then.failures, status.last_error
        sync = outcome.sync if outcome else None
        record = SyncRecord(
            at=utc(self._clock.wall_s()),
            why=why,
            outcome=ending,
            files=outcome.files if outcome else None,
            change=outcome.counts if outcome else None,
            sent_bytes=sync.archive_bytes if sync else status.uploaded_bytes - then.uploaded_bytes,
            attempts=failures if ending is SyncEnding.FAILED else failures + 1,
            seconds=round(self._clock.monotonic_s() - began_s, 3),
            sandbox=status.name,
            sandbox_id=one_line(status.id),
            error=ErrorRecord(error.step, error.message) if failures and error else None,
            failures_before=before.failures_before + 1 if before and before.is_failure else 0,
        )
        if should_record(record, before):
            with contextlib.suppress(OSError):
                append(self._db, record)
        if record.is_success or record.is_failure:
            self._before = record
