"""The history of a workspace: the record of a sync and of the paths that left in it, its file, and its writer.

A line is written before an archive leaves, and one at the end, so a failed and a killed sync have their paths. The file
is bounded: a line is added in one write, without a flush, and a full file is cut to its newer half. One process writes
at a time, the one with the workspace's lock.

Recorded is a sync that sent what had not left before, that was requested, that was initialized, or that failed, or did
not, as the one before it: a network that is down all day is one record, and a rescan that found nothing is none.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import StrEnum
from itertools import chain
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from syncd.core.clock import Clock, utc
from syncd.core.durable_file import read_file, write_whole
from syncd.core.settings import MAIN
from syncd.core.text import one_line, redacted
from syncd.model.entry import (
    ALL_BITS,
    Kind,
    arrived_digest,
    same,
)
from syncd.sync.outcome import Change, Outcome, SentArchive, SyncReason

# The reason of a daemon's first sync; the others are those of `SyncReason`.
START = "start"
# Beside the kinds of `Change`: the sandbox was known to hold the path so; paths that are counted.
UNCHANGED, UNNAMED = "unchanged", "unnamed"
# A row without its path: the keys, a word, a size, a digest.
_ROW_BYTES = 160
_NUMBER = re.compile(r"\d+")

MOST_BYTES = 8 << 20
# About 5,000 paths of an archive, so that a first snapshot leaves the other syncs their place.
NAMED_BYTES = 1 << 20

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
    sandbox: str = MAIN
    sandbox_id: str = ""
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


class HistoryStore:
    """The file of the history: lines of JSON, the newest last."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "history.jsonl")

    def append(self, record: SyncRecord) -> None:
        """Add a line. Raises `OSError`; the older lines stay."""
        line = encoded(record)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self.path, flags, 0o600)
        try:
            size_bytes = os.fstat(descriptor).st_size
            if size_bytes + len(line) < MOST_BYTES:
                # A crash or a full disk may have cut the last line short.
                is_torn = size_bytes > 0 and os.pread(descriptor, 1, size_bytes - 1) != b"\n"
                os.write(descriptor, b"\n" + line if is_torn else line)
                return
        finally:
            os.close(descriptor)
        content = read_file(self.path, MOST_BYTES)
        newer = content[content.find(b"\n", len(content) // 2) + 1 : content.rfind(b"\n") + 1]
        write_whole(self.path, newer + line)

    def read(self) -> tuple[list[SyncRecord], int]:
        """Return the syncs, the newest last, and the number of damaged lines. No file: no syncs.

        Raises `OSError`, also where something else than a file has the name.
        """
        try:
            return decoded(read_file(self.path, MOST_BYTES))
        except FileNotFoundError:
            return [], 0

    def forget_names(self) -> None:
        """Remove which paths left, and damaged lines, which may name some. Raises `OSError`."""
        records, damaged = self.read()
        if damaged or any(row.path is not None for record in records for row in record.rows()):
            write_whole(self.path, b"".join(encoded(replace(record, sent=())) for record in records))


class HistoryRecorder:
    """Records syncs; called in their order: `begin`, then `sending`, `sent` and `retrying`, then one of the endings.

    Calls outside of a sync are ignored, and a history that cannot be written costs the record, never the sync.
    `sandbox_id` is called late in each sync, since a sandbox may be acquired in it. `named_bytes` is how much of the
    names of paths is kept of each archive.
    """

    def __init__(
        self, clock: Clock, store: HistoryStore, sandbox: str, sandbox_id: Callable[[], str], named_bytes: int
    ) -> None:
        self._clock = clock
        self._store = store
        self._sandbox = sandbox
        self._sandbox_id = sandbox_id
        self._named_bytes = named_bytes
        self._is_first = True
        self._before: SyncRecord | None = None  # the last that succeeded or failed
        self._last: tuple[str, SentArchive] | None = None  # the last that left without success, and in which sync
        self._record: SyncRecord | None = None  # of the sync under way
        self._has_line = False
        self._began_s = 0.0
        self._sent_bytes = self._sent_now = 0  # by all uploads, and by this one

    def begin(self, why: str) -> None:
        """A sync begins; `why` is the value of a `SyncReason`."""
        if self._is_first and why == SyncReason.RESCAN.value:
            why = START  # what changed while nothing ran, or by another configuration
        self._is_first = self._has_line = False
        self._began_s, self._sent_bytes, self._sent_now = self._clock.monotonic_s(), 0, 0
        before = self._before
        self._record = SyncRecord(
            id=base64.b32encode(os.urandom(5)).decode()[:6].lower(),
            at=utc(self._clock.wall_s()),
            why=why,
            failures_before=before.failures_before + 1 if before and before.is_failure else 0,
        )

    def sending(self, archive: SentArchive) -> None:
        """Record the paths of an archive of which bytes are about to leave; called again at each attempt.

        One that a sync before sent without success is recorded there: a server that is down all night gets the same
        archive again and again.
        """
        if self._record is None:
            return
        if self._last is not None and (archive is self._last[1] or archive.repeats(self._last[1])):
            if self._last[0] != self._record.id:
                self._record = replace(self._record, repeats=self._last[0])
            return
        at = utc(self._clock.wall_s())
        record = replace(self._record, at=at, sandbox=self._sandbox, sandbox_id=one_line(self._sandbox_id()))
        with contextlib.suppress(OSError):
            self._store.append(replace(record, sent=(archive_record(at, archive, self._named_bytes),)))
            self._has_line, self._last = True, (record.id, archive)

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
        if self._has_line or should_record(record, self._before):
            with contextlib.suppress(OSError):
                self._store.append(record)
        if record.is_success or record.is_failure:
            self._before = record
        if ending is SyncEnding.INITIALIZED:
            self._last = None
