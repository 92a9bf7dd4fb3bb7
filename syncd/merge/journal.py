"""The journal of a write to the workspace: what is changed, and the old bytes, so that it can be taken back.

In the folder `apply` of the state folder, `pending` is the record of a write or an undo that has not ended, `journal`
that of the last write that did. The bytes of the files that it replaced are one after another in `kept-TOKEN`: one file
needs one flush. The token of a write is also in the names of its temporary files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec.structs import replace

from syncd.core.durable_file import StateFile, Versioned, flush_folder
from syncd.core.errors import Locked
from syncd.core.workspace_lock import Lock
from syncd.merge.writes import JournalPhase, PathChange
from syncd.model.entry import Entry

_COST = "what it wrote to the workspace cannot be taken back by `syncd apply --undo`"
_KEPT = "kept-"


class JournalEntry(Versioned, frozen=True, kw_only=True):
    """One write. `left` are paths that an undo, which was begun, does not restore."""

    token: str
    phase: JournalPhase
    note: bytes
    changes: tuple[PathChange, ...] = ()
    left: tuple[str, ...] = ()


class Journal:
    """The records and kept bytes of the last write, and of one that has not ended."""

    def __init__(self, state_folder: str) -> None:
        self._folder = os.path.join(state_folder, "apply")
        self._done = StateFile(self._folder, "journal", JournalEntry, _COST)
        self._pending = StateFile(self._folder, "pending", JournalEntry, _COST)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing to this workspace. Raises `Locked` and `OSError`."""
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
        """Return the write or undo that has not ended, after completing one that was killed when all was done."""
        entry = _load(self._pending)
        if entry is not None and entry.phase is JournalPhase.DONE:
            self._publish(entry)
            return None
        return entry

    def last(self) -> JournalEntry | None:
        """Return the last write that ended."""
        return _load(self._done)

    def save(self, entry: JournalEntry) -> None:
        """Record a write or undo that has not ended. Raises `OSError`."""
        self._pending.save(_with_texts(entry, _encoded))

    def complete(self, entry: JournalEntry) -> None:
        """Record that the write has ended; the one before it cannot be undone any more. Raises `OSError`."""
        entry = replace(entry, phase=JournalPhase.DONE)
        self.save(entry)
        with contextlib.suppress(OSError):  # the next one does it
            self._publish(entry)

    def forget(self, entry: JournalEntry) -> None:
        """Remove a write that was taken back, or never began. Raises `OSError`."""
        last = self.last()
        if last is not None and last.token == entry.token:
            self._done.remove()
            last = None
        self._pending.remove()
        self._remove_kept_but(last)

    @contextmanager
    def keeper(self, token: str) -> Iterator[int]:
        """Open the new file for the bytes that a write replaces, and flush it at the end. Raises `OSError`."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._kept(token), flags, 0o600)
        try:
            yield descriptor
            os.fsync(descriptor)
            flush_folder(self._folder)
        finally:
            os.close(descriptor)

    @contextmanager
    def kept(self, token: str) -> Iterator[int]:
        """Open the bytes that a write replaced. Raises `OSError`."""
        try:
            descriptor = os.open(self._kept(token), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # someone removed it; without it no file can be restored
            descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _publish(self, entry: JournalEntry) -> None:
        """Make the pending record the last one, and remove the bytes of all others."""
        os.replace(self._pending.path, self._done.path)
        flush_folder(self._folder)
        self._remove_kept_but(entry)

    def _remove_kept_but(self, entry: JournalEntry | None) -> None:
        """Remove the kept bytes of all other writes, those of killed processes too."""
        for name in os.listdir(self._folder):
            if name.startswith(_KEPT) and (entry is None or name != _KEPT + entry.token):
                os.unlink(os.path.join(self._folder, name))

    def _kept(self, token: str) -> str:
        return os.path.join(self._folder, _KEPT + token)


def _load(file: StateFile[JournalEntry]) -> JournalEntry | None:
    record = file.load()
    return None if record is None else _with_texts(record, _decoded)


def _encoded(text: str) -> str:
    """Return a path or a link's target with a character for each byte, as MessagePack's strings are UTF-8 only."""
    return os.fsencode(text).decode("latin-1")


def _decoded(text: str) -> str:
    return os.fsdecode(text.encode("latin-1"))


def _with_texts(entry: JournalEntry, text: Callable[[str], str]) -> JournalEntry:
    """Return the entry with all paths and targets as `text` makes them."""

    def side(of: Entry) -> Entry:
        return replace(of, target=text(of.target)) if of.target else of

    changes = (
        replace(each, path=text(each.path), before=side(each.before), after=side(each.after)) for each in entry.changes
    )
    return replace(entry, changes=tuple(changes), left=tuple(map(text, entry.left)))
