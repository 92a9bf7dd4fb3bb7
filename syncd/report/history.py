"""What is kept of a sync that is over, and which syncs are worth a line.

A line is for a sync that sent or tried to send, that someone asked for, that ended a row of failures, or that failed
in a way that is new in its row: a network that is away all day is one line, and a look that found nothing is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from syncd.core.text import shown_path
from syncd.scan.manifest import Difference
from syncd.sync.sync_reason import SyncReason

VERSION = 1
# Why a daemon looks for the first time; the other reasons are the agenda's.
START = "start"
# A row of failures may count, but not name, more kinds than this: a server that says something else each time.
MOST_KINDS = 30
_LONGEST_PATH = 200
_NUMBER = re.compile(r"\d+")

Time = Annotated[datetime, Meta(tz=True)]


class SyncEnding(StrEnum):
    """How a sync ended; `superseded`: it gave way to a newer change or a command."""

    INITIALIZED = "initialized"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    STOPPED = "stopped"


_SUCCESSES = frozenset({SyncEnding.INITIALIZED, SyncEnding.UNCHANGED})


class ChangeCounts(Struct, frozen=True, kw_only=True):
    """How many paths differ from what the sandbox held before, and the first of each kind."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    first_added: str | None = None
    first_changed: str | None = None
    first_removed: str | None = None


class Stages(Struct, frozen=True, kw_only=True):
    """Seconds awake in each kind of work, all attempts together: `packing` is scan and archive, `uploading` begins with
    the request for an upload URL, `waiting` is between attempts.
    """

    packing: float = 0.0
    uploading: float = 0.0
    initializing: float = 0.0
    waiting: float = 0.0


class ErrorRecord(Struct, frozen=True):
    """What failed last in this sync, even if a later attempt succeeded."""

    step: str
    message: str


class SyncRecord(Struct, frozen=True, kw_only=True):
    """One sync. Its names are a promise to scripts; `why` and `outcome` may get further words in later versions.

    `files` and `archive_bytes` are null where the sync did not come so far, `change` where nobody knows what the
    sandbox held. `sent_bytes` counts uploads that broke off, too. `failures_before`: syncs that failed in a row just
    before this one, whether they got a line or not.
    """

    version: int = VERSION
    at: Time
    began: Time
    why: str
    outcome: str
    files: int | None = None
    change: ChangeCounts | None = None
    archive_bytes: int | None = None
    sent_bytes: int = 0
    attempts: int = 0
    seconds: float = 0.0
    stages: Stages = Stages()
    sandbox: str = ""
    error: ErrorRecord | None = None
    failures_before: int = 0


def change_of(difference: Difference | None) -> ChangeCounts | None:
    """The difference in numbers, with one path of each kind to know it by."""
    if difference is None:
        return None
    return ChangeCounts(
        added=len(difference.added),
        changed=len(difference.changed),
        removed=len(difference.removed),
        first_added=_first(difference.added),
        first_changed=_first(difference.changed),
        first_removed=_first(difference.removed),
    )


def _first(paths: list[str]) -> str | None:
    if not paths:
        return None
    path = shown_path(paths[0])
    return path if len(path) <= _LONGEST_PATH else "…" + path[1 - _LONGEST_PATH :]


def kind_of(error: ErrorRecord) -> str:
    """What makes two failures the same one: step and words, whatever the numbers in them."""
    return f"{error.step}: {_NUMBER.sub('0', error.message)}"


def failed(record: SyncRecord) -> bool:
    """Whether it failed, or gave way or was stopped while a failure was waited out."""
    return record.outcome == SyncEnding.FAILED or (record.error is not None and record.outcome not in _SUCCESSES)


class FailureStreak(Struct, frozen=True):
    """Failures in a row: how many, and the kinds that have had their line."""

    count: int = 0
    kinds: frozenset[str] = frozenset()

    def after(self, record: SyncRecord) -> FailureStreak:
        """The row once this sync is over: any success ends it, and any other that failed on its way goes on it."""
        if record.outcome in _SUCCESSES:
            return FailureStreak()
        if record.error is None:  # it gave way before anything failed
            return self
        kinds = self.kinds if len(self.kinds) >= MOST_KINDS else self.kinds | {kind_of(record.error)}
        return FailureStreak(record.failures_before + 1, kinds)


def should_record(record: SyncRecord, row: FailureStreak) -> bool:
    """Whether it is written down; `row` is that of the failures before it."""
    if record.why == SyncReason.ORDER.value and record.outcome != SyncEnding.SUPERSEDED:
        return True
    if record.outcome in _SUCCESSES:
        return record.outcome == SyncEnding.INITIALIZED or row.count > 0
    if record.error is not None:
        return kind_of(record.error) not in row.kinds and len(row.kinds) < MOST_KINDS
    return record.sent_bytes > 0


def streak_at_the_end(records: Iterable[SyncRecord]) -> FailureStreak:
    """The row that the newest of these records stand in."""
    row = FailureStreak()
    for record in records:
        row = row.after(record)
    return row
