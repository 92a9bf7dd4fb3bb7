"""An entry with its path as a row of a record on disk."""

from __future__ import annotations

import os

from msgspec import Struct

from syncd.model.entry import Entry, Kind, Stamp


class StateRow(Struct, array_like=True):
    """An entry with its path. Both names are bytes, since MessagePack's strings are UTF-8 only."""

    path: bytes
    kind: Kind
    mode: int
    mtime_s: int
    size_bytes: int
    target: bytes
    stamp: Stamp | None
    digest: bytes
    sent_digest: bytes


def row_of(path: str, entry: Entry) -> StateRow:
    """Return the row of an entry."""
    target = os.fsencode(entry.target)
    known = lasting_stamp(entry), entry.digest, entry.sent_digest
    return StateRow(os.fsencode(path), entry.kind, entry.mode, entry.mtime_s, entry.size_bytes, target, *known)


def lasting_stamp(entry: Entry) -> Stamp | None:
    """Return the stamp, if it is of use to another process."""
    # A stamp that a later write may have left unchanged is of no use to a process that did not see that write.
    return entry.stamp if entry.written_back else None


def entry_of(row: StateRow) -> Entry:
    """Return the entry of a row."""
    size_bytes, target, stamp = row.size_bytes, os.fsdecode(row.target), row.stamp
    known = stamp, row.digest, row.sent_digest, stamp is not None
    return Entry(row.kind, row.mode, row.mtime_s, size_bytes, target, *known)
