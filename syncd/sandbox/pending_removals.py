"""Keeps which removals were started and are not known to have ended: they may be running, or start later.

Each is recorded durably before it is started. While it is recorded, nothing may be sent that it could still remove.
"""

from __future__ import annotations

from msgspec import Struct

from syncd.core.durable_file import StateFile, Versioned
from syncd.remote.target import Target

# Of sandboxes that a workspace went to before this one.
_MOST_OTHERS = 8


class PendingRemoval(Struct, frozen=True):
    """One execution, and the target that it was started with."""

    target: Target
    name: str


class _PendingRecord(Versioned, frozen=True, kw_only=True):
    notes: list[PendingRemoval]


class PendingRemovals:
    """The pending removals of one sandbox; those of others are kept beside them, in case they are used again."""

    def __init__(self, folder: str, target: Target) -> None:
        self._file = StateFile(folder, "started", _PendingRecord, "a removal that was started before may still run")
        self._target = target
        record = self._file.load()
        notes = record.notes if record is not None else []
        self._others = [note for note in notes if not note.target.same_sandbox(target)][-_MOST_OTHERS:]
        self.notes = [note for note in notes if note.target.same_sandbox(target)]

    def note(self, name: str) -> None:
        """Record a removal that is about to be started. Raises `OSError`; then it must not be."""
        notes = [*self.notes, PendingRemoval(self._target, name)]
        self._write(notes)
        self.notes = notes

    def forget(self) -> None:
        """Forget all of them, which have ended. Raises `OSError`, which costs the next process a request."""
        if not self.notes:
            return
        self.notes = []
        if self._others:
            self._write([])
        else:
            self._file.remove()

    def _write(self, notes: list[PendingRemoval]) -> None:
        self._file.save(_PendingRecord(notes=[*self._others, *notes]))
