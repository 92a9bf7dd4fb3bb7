"""The history of a workspace: the record of a sync, its table in the state's database, and its writer.

Recorded is a sync that was requested, that was initialized, or that failed, or did not, as the one before it: a network
that is down all day is one record, and a rescan that found nothing is none.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from zlib import crc32

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from syncd.core.clock import Clock, utc
from syncd.core.settings import MAIN
from syncd.core.text import one_line, redacted
from syncd.store.state_db import StateDb
from syncd.sync.outcome import Outcome, SyncReason

# The reason of a daemon's first sync; the others are those of `SyncReason`.
START = "start"
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


class ChangeCounts(Struct, frozen=True):
    """The numbers of paths that differ from what the sandbox held before."""

    added: int = 0
    changed: int = 0
    removed: int = 0


class ErrorRecord(Struct, frozen=True):
    """The last failure in a sync, even if a later attempt succeeded."""

    step: str
    message: str


class SyncRecord(Struct, frozen=True, kw_only=True):
    """One sync, which ended `at`. Scripts rely on the names; `why` and `outcome` may get further values later.

    `files` and `change` are null where the sync did not get so far, or it is not known what the sandbox held.
    `sent_bytes` counts uploads that broke off, too. `failures_before`: syncs that failed in a row right before this
    one, recorded or not, since the process began.
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


class History:
    """The table of past syncs in the database of a workspace."""

    def __init__(self, db: StateDb) -> None:
        self._db = db

    def append(self, record: SyncRecord) -> None:
        """Add a record, and remove the oldest of too many. Raises `OSError`."""
        value = msgspec.msgpack.encode(record)
        with self._db.transaction():
            self._db.change("INSERT INTO history (value, checksum) VALUES (?, ?)", value, crc32(value))
            self._db.change("DELETE FROM history WHERE number <= (SELECT max(number) FROM history) - ?", MOST)

    def read(self) -> list[SyncRecord]:
        """Return the records, the newest last; a damaged one counts as missing. Raises `OSError`."""
        found = []
        for value, checksum in self._db.rows("SELECT value, checksum FROM history ORDER BY number"):
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                if isinstance(value, bytes) and crc32(value) == checksum:
                    found.append(msgspec.msgpack.decode(value, type=SyncRecord))
        return found


class HistoryRecorder:
    """Records syncs; called in their order: `begin`, then `sent` and `retrying`, then one of the endings.

    Calls outside of a sync are ignored, and a history that cannot be written costs the record, never the sync.
    `sandbox_id` is called late in each sync, since a sandbox may be acquired in it.
    """

    def __init__(self, clock: Clock, history: History, sandbox: str, sandbox_id: Callable[[], str]) -> None:
        self._clock = clock
        self._history = history
        self._sandbox = sandbox
        self._sandbox_id = sandbox_id
        self._is_first = True
        self._before: SyncRecord | None = None  # the last that succeeded or failed
        self._record: SyncRecord | None = None  # of the sync under way
        self._began_s = 0.0
        self._sent_bytes = self._sent_now = 0  # by all uploads, and by this one

    def begin(self, why: str) -> None:
        """A sync begins; `why` is the value of a `SyncReason`."""
        if self._is_first and why == SyncReason.RESCAN.value:
            why = START  # what changed while nothing ran, or by another configuration
        self._is_first = False
        self._began_s, self._sent_bytes, self._sent_now = self._clock.monotonic_s(), 0, 0
        before = self._before
        self._record = SyncRecord(
            at=utc(self._clock.wall_s()),
            why=why,
            outcome=SyncEnding.STOPPED,
            failures_before=before.failures_before + 1 if before and before.is_failure else 0,
        )

    def sent(self, sent_bytes: int) -> None:
        """The number of bytes of an upload that were sent; each upload begins with 0."""
        self._sent_bytes += max(0, sent_bytes - self._sent_now)
        self._sent_now = sent_bytes

    def retrying(self, step: str, message: str) -> None:
        """An attempt failed, and another one follows after a wait."""
        if self._record is not None:
            error = ErrorRecord(step, one_line(redacted(message), 600))
            self._record = replace(self._record, error=error, attempts=self._record.attempts + 1)

    def succeeded(self, outcome: Outcome) -> None:
        if self._record is not None:
            found, change = outcome.change, None
            if found is not None:
                change = ChangeCounts(len(found.added), len(found.changed), len(found.removed))
            self._record = replace(self._record, files=outcome.files, change=change)
            self.end(SyncEnding.INITIALIZED if outcome.sync else SyncEnding.UNCHANGED)

    def failed(self, step: str, message: str) -> None:
        if self._record is not None:
            self._record = replace(self._record, error=ErrorRecord(step, one_line(redacted(message), 600)))
            self.end(SyncEnding.FAILED)

    def end(self, ending: SyncEnding) -> None:
        """It ended so."""
        if self._record is None:
            return
        record = replace(
            self._record,
            at=utc(self._clock.wall_s()),
            outcome=ending,
            sent_bytes=self._sent_bytes,
            seconds=round(self._clock.monotonic_s() - self._began_s, 3),
            sandbox=self._sandbox,
            sandbox_id=one_line(self._sandbox_id()),
        )
        self._record = None
        if should_record(record, self._before):
            with contextlib.suppress(OSError):
                self._history.append(record)
        if record.is_success or record.is_failure:
            self._before = record
