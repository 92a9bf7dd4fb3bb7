"""The record of a sync, and the rule which syncs are recorded.

Recorded is a sync that sent or tried to send, that was requested, that ended a streak of failures, or that failed in a
way that is new in its streak: a network that is down all day is one record, and a rescan that found nothing is none.
In a streak, too, each sync is recorded of which bytes left that had not left before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from syncd.core.text import shown_path
from syncd.scan.manifest import Difference
from syncd.sync.sync_reason import SyncReason

VERSION = 1
# The reason of a daemon's first sync; the others are those of `SyncReason`.
START = "start"
# A streak of failures counts, but does not record, more kinds than this: a server may answer something else each time.
MOST_KINDS = 30
_LONGEST_PATH = 200
_NUMBER = re.compile(r"\d+")

Time = Annotated[datetime, Meta(tz=True)]


class SyncEnding(StrEnum):
    """The end of a sync; `superseded`: it gave way to a newer change or a command."""

    INITIALIZED = "initialized"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    STOPPED = "stopped"


_SUCCESSES = frozenset({SyncEnding.INITIALIZED, SyncEnding.UNCHANGED})


class ChangeCounts(Struct, frozen=True, kw_only=True):
    """The numbers of paths that differ from what the sandbox held before, and the first path of each kind."""

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
    """The last failure in this sync, even if a later attempt succeeded."""

    step: str
    message: str


class SyncRecord(Struct, frozen=True, kw_only=True):
    """One sync. Scripts rely on the names; `why` and `outcome` may get further values in later versions.

    `files` and `archive_bytes` are null where the sync did not get so far, `change` where it is unknown what the
    sandbox held. `saved` counts the agent's versions that were saved, `held` the paths that both sides changed and
    that were not written. `sent_bytes` counts uploads that broke off, too. `failures_before`: syncs that failed in a
    row right before this one, recorded or not. `id` is null in lines of earlier versions. `paths_in` is the id under
    which the paths that it sent are kept: its own, or that of the failed sync whose archive it sent again; null if
    nothing was sent, or no paths are kept.
    """

    version: int = VERSION
    id: str | None = None
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
    saved: int = 0
    held: int = 0
    error: ErrorRecord | None = None
    failures_before: int = 0
    paths_in: str | None = None


def change_of(difference: Difference | None) -> ChangeCounts | None:
    """The difference in numbers, with one path of each kind as an example."""
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


def _first(paths: Sequence[str]) -> str | None:
    if not paths:
        return None
    path = shown_path(paths[0])
    return path if len(path) <= _LONGEST_PATH else "…" + path[1 - _LONGEST_PATH :]


def without_names(record: SyncRecord) -> SyncRecord:
    """Return the record without the names of paths, but for those in the message of its error."""
    change = record.change
    if change is None or (change.first_added, change.first_changed, change.first_removed) == (None, None, None):
        return record
    return replace(record, change=replace(change, first_added=None, first_changed=None, first_removed=None))


def kind_of(error: ErrorRecord) -> str:
    """The kind of a failure: its step and message without their numbers."""
    return f"{error.step}: {_NUMBER.sub('0', error.message)}"


def failed(record: SyncRecord) -> bool:
    """True if it failed, or was superseded or stopped in the wait after a failure."""
    return record.outcome == SyncEnding.FAILED or (record.error is not None and record.outcome not in _SUCCESSES)


class FailureStreak(Struct, frozen=True):
    """Failures in a row: their number, and the kinds that are recorded."""

    count: int = 0
    kinds: frozenset[str] = frozenset()

    def after(self, record: SyncRecord) -> FailureStreak:
        """The streak after this sync: a success ends it, and any other sync with a failure in it continues it."""
        if record.outcome in _SUCCESSES:
            return FailureStreak()
        if record.error is None:  # it gave way before anything failed
            return self
        kinds = self.kinds if len(self.kinds) >= MOST_KINDS else self.kinds | {kind_of(record.error)}
        return FailureStreak(record.failures_before + 1, kinds)


def should_record(record: SyncRecord, streak: FailureStreak) -> bool:
    """True if it is recorded; `streak` are the failures before it."""
    if record.why == SyncReason.ORDER.value and record.outcome != SyncEnding.SUPERSEDED:
        return True
    if record.paths_in is not None and record.paths_in == record.id:
        return True
    if record.outcome in _SUCCESSES:
        return record.outcome == SyncEnding.INITIALIZED or streak.count > 0
    if record.error is not None:
        return kind_of(record.error) not in streak.kinds and len(streak.kinds) < MOST_KINDS
    return record.sent_bytes > 0


def final_streak(records: Iterable[SyncRecord]) -> FailureStreak:
    """The streak after the last of these records."""
    streak = FailureStreak()
    for record in records:
        streak = streak.after(record)
    return streak
