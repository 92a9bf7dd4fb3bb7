"""Keeps what lingers in a sandbox, apart from what it holds: it changes with deletions only."""

from __future__ import annotations

import logging
import os

from msgspec import Struct

from syncd.core.durable_file import StateFile
from syncd.remote.target import Target
from syncd.sandbox.leftovers import NOTHING, Lingering
from syncd.sandbox.removal_plan import Versions
from syncd.scan.manifest import Entry, Kind, arrived_digest

_log = logging.getLogger("syncd.clearing")
_VERSION = 1


class _Row(Struct, array_like=True):
    """One version of one path: names as the bytes they are."""

    path: bytes
    kind: Kind
    size_bytes: int
    target: bytes
    digest: bytes


class _Record(Struct):
    version: int
    target: Target
    rows: list[_Row]
    changed: list[bytes]
    unnamed: int
    files: int
    secret: list[bytes] = []  # unknown to the first version


class LingeringFile:
    """What lingers in one sandbox."""

    def __init__(self, folder: str, target: Target) -> None:
        self._file = StateFile(folder, "lingering", "files that were deleted here may stay in the sandbox uncounted")
        self._target = target
        self._kept = NOTHING

    def load(self) -> Lingering:
        """What is kept; nothing, where no sensible record of this sandbox is."""
        record = self._file.recalled(_Record, _log)
        if record is None or record.version != _VERSION or not record.target.same_sandbox(self._target):
            return NOTHING
        entries: Versions = {}
        for row in record.rows:
            entries.setdefault(os.fsdecode(row.path), []).append(_entry(row))
        changed = frozenset(map(os.fsdecode, record.changed))
        secret = frozenset(map(os.fsdecode, record.secret))
        self._kept = Lingering(entries, changed, record.unnamed, record.files, secret)
        return self._kept

    def save(self, lingering: Lingering) -> None:
        """Keep it, for good, if it is another than what is kept. Raises `OSError`."""
        if lingering == self._kept:
            return
        if lingering == NOTHING:
            self._file.remove()
        else:
            rows = [
                _Row(os.fsencode(path), entry.kind, entry.size_bytes, os.fsencode(entry.target), arrived_digest(entry))
                for path, versions in lingering.entries.items()
                for entry in versions
            ]
            changed = sorted(map(os.fsencode, lingering.changed))
            secret = sorted(map(os.fsencode, lingering.secret))
            record = _Record(_VERSION, self._target, rows, changed, lingering.unnamed, lingering.files, secret)
            self._file.write_record(record)
        self._kept = lingering


def _entry(row: _Row) -> Entry:
    # Permissions and times say nothing of whether it is as it was uploaded.
    return Entry(row.kind, 0, 0, row.size_bytes, os.fsdecode(row.target), None, row.digest)
