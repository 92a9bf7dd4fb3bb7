"""Keeps which removals were started and are not known to have ended: they may be running, or start later.

Each is recorded durably before it is started. While it is recorded, nothing may be sent that it could still remove.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from msgspec import Struct

from syncd.remote.target import Target
from syncd.store.state_db import Record, StateDb


class PendingRemoval(Struct, frozen=True):
    """One execution, the target that it was started with, and the paths that it may remove."""

    target: Target
    name: str
    paths: tuple[bytes, ...]

    def may_remove(self, wanted: Collection[str]) -> bool:
        """Return True if it could remove one of the wanted paths, or a directory above one."""
        if not self.paths or not wanted:
            return False
        removed = set(map(os.fsdecode, self.paths))
        return any(path in removed for path in _with_parents(wanted))


class PendingRemovals:
    """The pending removals of one sandbox."""

    def __init__(self, db: StateDb, target: Target) -> None:
        cost = "a removal that was started before may still run"
        self._record = Record(db, "removals", list[PendingRemoval], cost, target.owner)
        self._target = target
        self.notes = self._record.load() or []

    def note(self, name: str, paths: Iterable[str]) -> None:
        """Record a removal that is about to be started. Raises `OSError`; then it must not be."""
        notes = [*self.notes, PendingRemoval(self._target, name, tuple(map(os.fsencode, paths)))]
        self._record.save(notes)
        self.notes = notes

    def forget(self, name: str) -> None:
        """Forget the one of this name, which has ended. Raises `OSError`, which costs the next process a request."""
        notes = [note for note in self.notes if note.name != name]
        if len(notes) < len(self.notes):
            self.notes = notes
            if notes:
                self._record.save(notes)
            else:
                self._record.remove()


def _with_parents(paths: Iterable[str]) -> Iterable[str]:
    """Yield each path, and each directory above one, once."""
    seen: set[str] = set()
    for path in paths:
        above = path
        while above and above not in seen:
            seen.add(above)
            yield above
            above = above.rpartition("/")[0]
