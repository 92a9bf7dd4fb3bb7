"""The journal of a write to the workspace: what is changed, and the old bytes, so that it can be taken back.

In the state's database, `pending` is the record of a write or an undo that has not ended, `journal` that of the last
write that did. The bytes of the files that it replaced are one after another in `apply/kept-TOKEN` in the state folder:
one file needs one flush. The token of a write is also in the names of its temporary files.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from syncd.core.durable_file import flush_folder
from syncd.core.errors import Locked
from syncd.core.workspace_lock import Lock
from syncd.merge.writes import JournalPhase, PathChange
from syncd.sandbox.sandbox_content import TakenPath
from syncd.store.state_db import Record, StateDb

_log = logging.getLogger("syncd.state")
_COST = "what it wrote to the workspace cannot be taken back by `syncd apply --undo`"
_KEPT = "kept-"


class JournalEntry(Struct, frozen=True, kw_only=True):
    """One write. `taken` is what counts as sent by it; `left` are paths that an undo, which was begun, leaves."""

    token: str
    phase: JournalPhase
    taken: tuple[TakenPath, ...]
    changes: tuple[PathChange, ...] = ()
    left: tuple[str, ...] = ()


class Journal:
    """The records and kept bytes of the last write, and of one that has not ended."""

    def __init__(self, db: StateDb) -> None:
        self._folder = os.path.join(db.folder, "apply")
        # In JSON of Python's own, which has an escape for what is no UTF-8 in a path.
        self._done = Record(db, "journal", str, _COST)
        self._pending = Record(db, "pending", str, _COST)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing to this workspace. Raises `Locked` and `OSError`.

        A daemon lets several commands write, and when it ends, the next command does so beside those.
        """
        os.makedirs(self._folder, 0o700, exist_ok=True)
        lock = Lock(self._folder)
        try:
            lock.acquire()
        except Locked:
            raise Locked(
                "another syncd is writing to this workspace now", "run the command again when it has ended"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def pending(self) -> JournalEntry | None:
        """Return the write or undo that has not ended."""
        return _load(self._pending)

    def last(self) -> JournalEntry | None:
        """Return the last write that ended."""
        return _load(self._done)

    def save(self, entry: JournalEntry) -> None:
        """Record a write that has not ended. Raises `OSError`."""
        _save(self._pending, entry)

    def complete(self, entry: JournalEntry) -> None:
        """Record, in the transaction that is open, that the write has ended: the one before cannot be undone any more.

        One that changed nothing leaves it. Raises `OSError`.
        """
        if entry.changes:
            _save(self._done, replace(entry, phase=JournalPhase.DONE))
        self._pending.remove()

    def reopen(self, entry: JournalEntry) -> None:
        """Record, in the transaction that is open, that the last write is being undone. Raises `OSError`."""
        self.save(entry)
        self._done.remove()

    def forget(self) -> None:
        """Forget a write that was taken back, or never began. Raises `OSError`."""
        self.remove_kept()  # first, as on a full disk the record cannot be removed before
        self._pending.remove()

    def remove_kept(self) -> None:
        """Remove the kept bytes of all but the last write that ended, those of killed processes too."""
        last = self.last()
        for name in os.listdir(self._folder):
            if name.startswith(_KEPT) and (last is None or name != _KEPT + last.token):
                os.unlink(os.path.join(self._folder, name))

    @contextmanager
    def kept(self, token: str) -> Iterator[int]:
        """Open the bytes that a write replaces, flushed at the end; none if they are new, or if someone removed them.

        Raises `OSError`.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(os.path.join(self._folder, _KEPT + token), flags, 0o600)
        try:
            yield descriptor
            os.fsync(descriptor)
            flush_folder(self._folder)
            flush_folder(os.path.dirname(self._folder))  # the first write made the folder
        finally:
            os.close(descriptor)


def _load(record: Record[str]) -> JournalEntry | None:
    text = record.load()
    try:
        return None if text is None else msgspec.convert(json.loads(text), JournalEntry)
    except (ValueError, msgspec.ValidationError):
        _log.warning("the journal is of another version: %s", _COST)
        return None


def _save(record: Record[str], entry: JournalEntry) -> None:
    record.save(json.dumps(msgspec.to_builtins(entry)))
