"""The record of a sync and of the paths that left in it, and the rule which syncs are recorded.

Recorded is a sync that sent what had not left before, that was requested, that was initialized, or that failed, or did
not, as the one before it: a network that is down all day is one record, and a rescan that found nothing is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from itertools import chain
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from syncd.model.entry import (
    ALL_BITS,
    Kind,
    arrived_digest,
    same,
)
from syncd.sync.arrived_changes import Change
from syncd.sync.sent_archive import SentArchive
from syncd.sync.sync_reason import SyncReason

# The reason of a daemon's first sync; the others are those of `SyncReason`.
START = "start"
# Beside the kinds of `Change`: the sandbox was known to hold the path so; paths that are counted.
UNCHANGED, UNNAMED = "unchanged", "unnamed"
# A row without its path: the keys, a word, a size, a digest.
_ROW_BYTES = 160
_NUMBER = re.compile(r"\d+")

Time = Annotated[datetime, Meta(tz=True)]


class SyncEnding(StrEnum):
    """The end of a sync; `superseded`: it gave way to a newer change or a command; `unfinished`: it has none."""

    INITIALIZED = "initialized"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    STOPPED = "stopped"
    UNFINISHED = "unfinished"


class PathRecord(Struct, frozen=True):
    """A path, or several without a name; size and digest are null for what is no file, and for what is removed."""

    change: str
    path: str | None
    paths: int = 1
    bytes: int | None = None
    sha256: str | None = None


class ArchiveRecord(Struct, frozen=True):
    """An archive, `whole` or `partial`; `at` is when its first byte left."""

    at: Time
    archive: str
    rows: tuple[PathRecord, ...] = ()


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
    one, recorded or not, since the process began. `repeats` is the id of the failed sync whose archive this one sent
    again, and with which it is recorded. `sent`: on disk the archives of this line alone.
    """

    version: int = 1
    id: str
    at: Time
    why: str
    outcome: str = SyncEnding.UNFINISHED
    files: int | None = None
    change: ChangeCounts | None = None
    sent_bytes: int = 0
    attempts: int = 1
    seconds: float = 0.0
    sandbox: str = ""
    error: ErrorRecord | None = None
    failures_before: int = 0
    repeats: str | None = None
    sent: tuple[ArchiveRecord, ...] = ()

    @property
    def is_success(self) -> bool:
        """True if the sandbox holds all."""
        return self.outcome in (SyncEnding.INITIALIZED, SyncEnding.UNCHANGED)

    @property
    def is_failure(self) -> bool:
        """True if it failed, or was superseded or stopped in the wait after a failure."""
        return self.error is not None and not self.is_success

    def rows(self) -> Iterator[PathRecord]:
        """Yield the rows of all its archives."""
        return chain.from_iterable(archive.rows for archive in self.sent)


def should_record(record: SyncRecord, before: SyncRecord | None) -> bool:
    """True if it is recorded even if it sent nothing new; `before` is the last one that succeeded or failed, if any."""
    if record.why == SyncReason.ORDER.value and record.outcome != SyncEnding.SUPERSEDED:
        return True
    is_other = (record.is_success or record.is_failure) and _failure(record) != _failure(before)
    return record.outcome == SyncEnding.INITIALIZED or is_other


def _failure(record: SyncRecord | None) -> str:
    """The kind of a sync's failure: its step and message without their numbers; empty if it did not fail."""
    if record is None or record.error is None or record.is_success:
        return ""
    return _NUMBER.sub("0", f"{record.error.step}: {record.error.message}")


def archive_record(at: datetime, archive: SentArchive, named_bytes: int) -> ArchiveRecord:
    """Return the record of an archive. It names the changed paths, those that fit into so many bytes.

    Counted are the others, and in a whole archive those that it brings once more as they were.
    """
    rows: list[PathRecord] = []
    for row in chain(_rows(archive), (PathRecord(Change.REMOVED, path) for path in archive.removed)):
        named_bytes -= _ROW_BYTES + len(json.dumps(row.path))
        if named_bytes < 0:
            break
        rows.append(row)
    sent_bytes = [row.bytes or 0 for row in rows if row.change != Change.REMOVED]
    counted = [
        PathRecord(
            UNNAMED, None, len(archive.entries) - len(sent_bytes), archive.entries.content_bytes - sum(sent_bytes)
        ),
        PathRecord(Change.REMOVED, None, len(archive.removed) - len(rows) + len(sent_bytes)),
    ]
    rows += [row for row in counted if row.paths]
    return ArchiveRecord(at, "whole" if archive.is_whole else "partial", tuple(rows))


def _rows(archive: SentArchive) -> Iterator[PathRecord]:
    for path, old, entry in archive.changes():
        change = Change.ADDED if old is None else UNCHANGED if same(old, entry, ALL_BITS) else Change.CHANGED
        if change == UNCHANGED and archive.is_whole:
            continue
        if entry.kind is Kind.FILE:
            yield PathRecord(change, path, 1, entry.size_bytes, arrived_digest(entry).hex() or None)
        else:
            yield PathRecord(change, path)


def encoded(record: SyncRecord) -> bytes:
    """Return the record's line, with its end.

    Names that are not UTF-8 have lone surrogates in JSON, as `syncd diff --json` has them; msgspec refuses those, json
    does not.
    """
    return json.dumps(msgspec.to_builtins(record), separators=(",", ":")).encode() + b"\n"


def decoded(content: bytes) -> tuple[list[SyncRecord], int]:
    """Return the syncs in these lines, each once, in the order of their ends, and the number of damaged lines."""
    found: dict[str, SyncRecord] = {}
    damaged = 0
    for line in filter(None, content.split(b"\n")):
        try:
            record = msgspec.convert(json.loads(line), SyncRecord)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            damaged += 1
            continue
        before: tuple[ArchiveRecord, ...] = ()
        if record.id in found:
            before = found.pop(record.id).sent
        elif record.repeats in found:
            before = tuple(replace(archive, at=record.at) for archive in found[record.repeats].sent)
        found[record.id] = replace(record, sent=(*before, *record.sent))
    return list(found.values()), damaged
