"""The record of the paths that left this machine in an archive.

A path has left once the archive's first byte has: what became of the upload is the sync's outcome. An archive may hold
a million paths, so a record names as many as fit into `MOST_BYTES`, and counts the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from syncd.core.text import one_line
from syncd.report.history import SyncRecord, Time
from syncd.scan.entry import Entry, Kind, arrived_digest
from syncd.sync.arrived_changes import Change
from syncd.sync.sent_archive import SentArchive
from syncd.sync.sync_plan import same_content

VERSION = 1
# About 7,000 paths. The file holds eight times as much, so that a first snapshot leaves the other syncs their place.
MOST_BYTES = 1 << 20
# A row without its path: a word, a size, a digest, and what separates them.
_ROW_BYTES = 120
# The change of a path that was in the archive, and is as the sandbox was known to hold it.
UNCHANGED = "unchanged"


class SentPath(Struct, frozen=True, array_like=True):
    """One path. Size and digest are those of the bytes in the archive, and null for what is no file, or removed."""

    change: str
    path: str
    bytes: int | None = None
    sha256: str | None = None


class UnnamedPaths(Struct, frozen=True, array_like=True):
    """Further paths with the same change: their number, and the sum of their sizes."""

    change: str
    paths: int
    bytes: int


class ArchiveRecord(Struct, frozen=True, kw_only=True):
    """One archive. `archive` is `whole` or `partial`; `at` is when its first byte left."""

    version: int = VERSION
    sync: str
    at: Time
    sandbox: str
    archive: str
    named: tuple[SentPath, ...] = ()
    unnamed: tuple[UnnamedPaths, ...] = ()


def archive_record(sync_id: str, at: datetime, sandbox_id: str, archive: SentArchive) -> ArchiveRecord:
    """Return the record of an archive.

    The changed paths of a whole archive are named, and those counted that it brings once more as they were.
    """
    named: list[SentPath] = []
    unnamed: dict[str, tuple[int, int]] = {}
    room_bytes = MOST_BYTES

    def add(row: SentPath) -> None:
        nonlocal room_bytes
        room_bytes -= _ROW_BYTES + len(json.dumps(row.path))
        if room_bytes >= 0:
            named.append(row)
        else:
            count(row.change, 1, row.bytes or 0)

    def count(change: str, paths: int, size_bytes: int) -> None:
        before = unnamed.get(change, (0, 0))
        unnamed[change] = before[0] + paths, before[1] + size_bytes

    left, left_bytes = len(archive.entries), archive.entries.content_bytes
    for path, old, entry in archive.changes():
        if room_bytes < 0 and not archive.base:
            break  # all are added, so the rest need not be looked at
        change = _change(old, entry)
        if change == UNCHANGED and archive.is_whole:
            continue
        add(_row(change, path, entry))
        left, left_bytes = left - 1, left_bytes - entry.size_bytes
    if left:
        count(UNCHANGED if archive.base else Change.ADDED, left, left_bytes)
    for path in archive.removed:
        add(SentPath(Change.REMOVED, path))
    return ArchiveRecord(
        sync=sync_id,
        at=at,
        sandbox=one_line(sandbox_id),
        archive="whole" if archive.is_whole else "partial",
        named=tuple(named),
        unnamed=tuple(UnnamedPaths(change, *counts) for change, counts in unnamed.items()),
    )


def _change(old: Entry | None, entry: Entry) -> str:
    if old is None:
        return Change.ADDED
    return UNCHANGED if same_content(old, entry) else Change.CHANGED


def _row(change: str, path: str, entry: Entry) -> SentPath:
    if entry.kind is not Kind.FILE:
        return SentPath(change, path)
    return SentPath(change, path, entry.size_bytes, arrived_digest(entry).hex() or None)


def sent_by_sync(sent: Iterable[ArchiveRecord], records: Iterable[SyncRecord]) -> dict[str, list[ArchiveRecord]]:
    """Return the archives of each sync that sent some, the newest last; those that it sent again, too."""
    found: dict[str, list[ArchiveRecord]] = {}
    for archive in sent:
        found.setdefault(archive.sync, []).append(archive)
    for record in records:
        if record.id is not None and record.paths_in in found and record.paths_in != record.id:
            found[record.id] = [replace(each, sync=record.id, at=record.began) for each in found[record.paths_in]]
    return dict(sorted(found.items(), key=lambda item: item[1][0].at))


def encoded_lines(sent: ArchiveRecord, outcome: str | None) -> Iterator[str]:
    """Yield a line of `history --paths --json` for each path, and for the further paths with each change.

    Scripts rely on the names. `paths` and `bytes` of all lines that are not `removed` add up to those of the archive.
    """
    head = {
        "version": sent.version,
        "sync": sent.sync,
        "at": to_builtins(sent.at),
        "sandbox": sent.sandbox,
        "outcome": outcome,
        "archive": sent.archive,
    }
    named = ((row.change, row.path, 1, row.bytes, row.sha256) for row in sent.named)
    unnamed = ((rest.change, None, rest.paths, rest.bytes, None) for rest in sent.unnamed)
    for values in chain(named, unnamed):
        yield json.dumps({**head, **dict(zip(("change", "path", "paths", "bytes", "sha256"), values, strict=True))})


def archive_total(sent: ArchiveRecord) -> tuple[int, int]:
    """Return how many paths the archive held, and the sum of their sizes."""
    named = [row for row in sent.named if row.change != Change.REMOVED]
    unnamed = [rest for rest in sent.unnamed if rest.change != Change.REMOVED]
    sizes = chain((row.bytes or 0 for row in named), (rest.bytes for rest in unnamed))
    return len(named) + sum(rest.paths for rest in unnamed), sum(sizes)
