"""Keeps a sandbox's leftovers, apart from its manifest, as they change with deletions only."""

from __future__ import annotations

import os

from msgspec import Struct, field

from syncd.core.durable_file import StateFile, Versioned
from syncd.model.entry import Entry, Kind, arrived_digest
from syncd.remote.target import Target
from syncd.sandbox.leftovers import NO_LEFTOVERS, Leftovers
from syncd.sandbox.removal_plan import Versions


class _LeftoverRow(Struct, array_like=True):
    """One version of one path, with names as bytes."""

    path: bytes
    kind: Kind
    size_bytes: int
    target: bytes
    digest: bytes


class _LeftoversRecord(Versioned, frozen=True, kw_only=True):
    target: Target
    rows: list[_LeftoverRow]
    changed: list[bytes]
    unnamed: int
    files: int
    secret: list[bytes] = field(default_factory=list)  # unknown to the first version


class LeftoversStore:
    """Keeps the leftovers of one sandbox."""

    def __init__(self, folder: str, target: Target) -> None:
        self._file = StateFile(
            folder, "lingering", _LeftoversRecord, "files that were deleted here may stay in the sandbox uncounted"
        )
        self._target = target
        self._saved = NO_LEFTOVERS

    def load(self) -> Leftovers:
        """Return what is kept, nothing without a valid record of this sandbox."""
        record = self._file.load()
        if record is None or not record.target.same_sandbox(self._target):
            return NO_LEFTOVERS
        entries: Versions = {}
        for row in record.rows:
            entries.setdefault(os.fsdecode(row.path), []).append(_entry(row))
        changed = frozenset(map(os.fsdecode, record.changed))
        secret = frozenset(map(os.fsdecode, record.secret))
        self._saved = Leftovers(entries, changed, record.unnamed, record.files, secret)
        return self._saved

    def save(self, leftovers: Leftovers) -> None:
        """Keep the leftovers durably, if they have changed. Raises `OSError`."""
        if leftovers == self._saved:
            return
        if leftovers == NO_LEFTOVERS:
            self._file.remove()
        else:
            rows = [
                _LeftoverRow(
                    os.fsencode(path), entry.kind, entry.size_bytes, os.fsencode(entry.target), arrived_digest(entry)
                )
                for path, versions in leftovers.entries.items()
                for entry in versions
            ]
            changed = sorted(map(os.fsencode, leftovers.changed))
            secret = sorted(map(os.fsencode, leftovers.secret))
            record = _LeftoversRecord(
                target=self._target,
                rows=rows,
                changed=changed,
                unnamed=leftovers.unnamed,
                files=leftovers.files,
                secret=secret,
            )
            self._file.save(record)
        self._saved = leftovers


def _entry(row: _LeftoverRow) -> Entry:
    # Permissions and times do not show if a file is as it was uploaded.
    return Entry(row.kind, 0, 0, row.size_bytes, os.fsdecode(row.target), None, row.digest)
