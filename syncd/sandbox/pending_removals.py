"""Which executions were asked for and are not known to have ended: they may be running, or begin later.

Noted for good before each is asked for. While such a note stands, nothing may be put where the execution could still
take it away.
"""

from __future__ import annotations

from msgspec import Struct

from syncd.core.durable_file import StateFile, Versioned
from syncd.remote.target import Target

# Of sandboxes that a workspace went to before this one.
_MOST_OTHERS = 8


class PendingRemoval(Struct, frozen=True):
    """One execution, and the way by which it was asked for."""

    target: Target
    name: str


class _PendingRecord(Versioned, frozen=True, kw_only=True):
    notes: list[PendingRemoval]


class PendingRemovals:
    """The notes of one sandbox; those of others are kept beside them, for the time that it is their turn again."""

    def __init__(self, folder: str, target: Target) -> None:
        self._file = StateFile(folder, "started", _PendingRecord, "a removal that was started before may still run")
        self._target = target
        record = self._file.load()
        notes = record.notes if record is not None else []
        self._others = [note for note in notes if not note.target.same_sandbox(target)][-_MOST_OTHERS:]
        self.notes = [note for note in notes if note.target.same_sandbox(target)]

    def note(self, name: str) -> None:
        """This one is about to be asked for. Raises `OSError`: then it must not be."""
        notes = [*self.notes, PendingRemoval(self._target, name)]
        self._write(notes)
        self.notes = notes

    def forget(self) -> None:
        """All of them have ended. Raises `OSError`, which costs the next process a question."""
        if not self.notes:
            return
        self.notes = []
        if self._others:
            self._write([])
        else:
            self._file.remove()

    def _write(self, notes: list[PendingRemoval]) -> None:
        self._file.save(_PendingRecord(notes=[*self._others, *notes]))
