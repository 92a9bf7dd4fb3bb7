"""Keeps which removals were started and are not known to have ended: they may be running, or start later.

Each is recorded durably before it is started. While it is recorded, nothing may be sent that it could still remove.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from msgspec import Struct

from syncd.remote.target import Target
from syncd.store.state_db import Record, StateDb

# Of sandboxes that a workspace went to before this one.
_MOST_OTHERS = 8


class PendingRemoval(Struct, frozen=True, omit_defaults=True):
    """One execution, and the target that it was started with.

    `paths` are those that it may remove, None if they are not known: the first version did not record them.
    """

    target: Target
    name: str
    paths: tuple[bytes, ...] | None = None

    def may_remove(self, wanted: Collection[str]) -> bool:
        """Return True if it could remove one of the wanted paths, or a directory above one."""
        if self.paths is None:
            return bool(wanted)
        if not self.paths or not wanted:
            return False
        removed = set(map(os.fsdecode, self.paths))
        return any(path in removed for path in _with_parents(wanted))


class PendingRemovals:
    """The pending removals of one sandbox; those of others are kept beside them, in case they are used again."""

    def __init__(self, db: StateDb, target: Target) -> None:
        self._record = Record(db, "removals", list[PendingRemoval], "a removal that was started before may still run")
        self._target = target
        notes = self._record.load() or []
        self._others = [note for note in notes if not note.target.same_sandbox(target)][-_MOST_OTHERS:]
        self.notes = [note for note in notes if note.target.same_sandbox(target)]

    def note(self, name: str, paths: Iterable[str] | None = None) -> None:
        """Record a removal that is about to be started. Raises `OSError`; then it must not be."""
        names = None if paths is None else tuple(map(os.fsencode, paths))
        notes = [*self.notes, PendingRemoval(self._target, name, names)]
        self._write(notes)
        self.notes = notes

    def forget(self) -> None:
        """Forget all of them, which have ended. Raises `OSError`, which costs the next process a request."""
        self._keep([])

    def forget_one(self, name: str) -> None:
        """Forget the one of this name, which has ended. Raises `OSError`, which costs the next process a request."""
        self._keep([note for note in self.notes if note.name != name])

    def _keep(self, notes: list[PendingRemoval]) -> None:
        if len(notes) == len(self.notes):
            return
        self.notes = notes
        if notes or self._others:
            self._write(notes)
        else:
            self._record.remove()

    def _write(self, notes: list[PendingRemoval]) -> None:
        self._record.save([*self._others, *notes])


def _with_parents(paths: Iterable[str]) -> Iterable[str]:
    """Yield each path, and each directory above one, once."""
    seen: set[str] = set()
    for path in paths:
        above = path
        while above and above not in seen:
            seen.add(above)
            yield above
            above = above.rpartition("/")[0]
