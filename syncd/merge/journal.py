"""The journal of a write to the workspace: what is changed, and the old bytes, so that it can be taken back.

In the folder `apply` of the state folder, `pending` is the record of a write or an undo that has not ended, `journal`
that of the last write that did. The bytes of the files that it replaced are one after another in `kept-TOKEN`: one file
needs one flush. The token of a write is also in the names of its temporary files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.durable_file import StateFile, Versioned, flush_folder
from syncd.core.errors import Locked
from syncd.core.workspace_lock import Lock
from syncd.merge.file_copy import SHARED_ALIGNMENT, SHARED_FROM_BYTES, copy_range
from syncd.merge.writes import JournalItem, JournalPhase
from syncd.model.entry import Entry, Kind, Stamp

_COST = "what it wrote to the workspace cannot be taken back by `syncd apply --undo`"
_KEPT = "kept-"


class _LocalRow(Struct, array_like=True):
    """A `Entry` on disk."""

    kind: Kind
    mode: int
    size_bytes: int
    target: bytes
    digest: bytes
    stamp: Stamp | None


class _ItemRow(Struct, array_like=True):
    """A `JournalItem` on disk."""

    number: int
    path: bytes
    before: _LocalRow | None
    after: _LocalRow | None
    kept_at: int
    implied: bool


class _JournalRecord(Versioned, frozen=True, kw_only=True):
    """A `JournalEntry` on disk."""

    token: str
    phase: JournalPhase
    note: bytes
    items: list[_ItemRow]
    left: list[bytes]


class JournalEntry(Struct, frozen=True):
    """One write. `left` are paths that an undo, which was begun, does not restore."""

    token: str
    phase: JournalPhase
    note: bytes
    items: tuple[JournalItem, ...] = ()
    left: tuple[str, ...] = ()


class Journal:
    """The records and kept bytes of the last write, and of one that has not ended."""

    def __init__(self, state_folder: str) -> None:
        self._folder = os.path.join(state_folder, "apply")
        self._done = StateFile(self._folder, "journal", _JournalRecord, _COST)
        self._pending = StateFile(self._folder, "pending", _JournalRecord, _COST)

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
        entry = _entry(self._pending.load())
        if entry is not None and entry.phase is JournalPhase.DONE:
            self._publish(entry)
            return None
        return entry

    def last(self) -> JournalEntry | None:
        """Return the last write that ended."""
        return _entry(self._done.load())

    def save(self, entry: JournalEntry) -> None:
        """Record a write or undo that has not ended. Raises `OSError`."""
        self._pending.save(_record(entry))

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

    def keeper(self, token: str) -> KeptBytes:
        """Return the new file for the bytes that a write replaces. Raises `OSError`."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return KeptBytes(os.open(self._kept(token), flags, 0o600), self._folder)

    def kept(self, token: str) -> KeptBytes:
        """Return the bytes that a write replaced. Raises `OSError`."""
        try:
            descriptor = os.open(self._kept(token), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # someone removed it; without it no file can be restored
            descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return KeptBytes(descriptor, self._folder)

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


class KeptBytes:
    """The file with the bytes of replaced files."""

    def __init__(self, descriptor: int, folder: str) -> None:
        self._descriptor = descriptor
        self._folder = folder

    def keep(self, file: int, size_bytes: int) -> tuple[int, bytes]:
        """Copy an open file, and return where it begins and its SHA-256. Raises `OSError`."""
        at = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        if size_bytes >= SHARED_FROM_BYTES:
            at = os.lseek(self._descriptor, -(-at // SHARED_ALIGNMENT) * SHARED_ALIGNMENT, os.SEEK_SET)
        return at, copy_range(file, 0, size_bytes, self._descriptor)

    def copy(self, at: int, size_bytes: int, target: int) -> bytes:
        """Write a kept file into an open one, and return its SHA-256. Raises `OSError`."""
        return copy_range(self._descriptor, at, size_bytes, target)

    def flush(self) -> None:
        """Flush the file and its folder. Raises `OSError`."""
        os.fsync(self._descriptor)
        flush_folder(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def _record(entry: JournalEntry) -> _JournalRecord:
    return _JournalRecord(
        token=entry.token,
        phase=entry.phase,
        note=entry.note,
        items=[
            _ItemRow(i.number, os.fsencode(i.path), _row(i.before), _row(i.after), i.kept_at, i.implied)
            for i in entry.items
        ],
        left=_encoded(entry.left),
    )


def _encoded(paths: Sequence[str]) -> list[bytes]:
    return [os.fsencode(path) for path in paths]


def _row(entry: Entry | None) -> _LocalRow | None:
    if entry is None:
        return None
    return _LocalRow(entry.kind, entry.mode, entry.size_bytes, os.fsencode(entry.target), entry.digest, entry.stamp)


def _entry(record: _JournalRecord | None) -> JournalEntry | None:
    if record is None:
        return None
    items = tuple(
        JournalItem(r.number, os.fsdecode(r.path), _local(r.before), _local(r.after), r.kept_at, r.implied)
        for r in record.items
    )
    return JournalEntry(record.token, record.phase, record.note, items, tuple(map(os.fsdecode, record.left)))


def _local(row: _LocalRow | None) -> Entry | None:
    if row is None:
        return None
    return Entry(
        row.kind,
        row.mode,
        size_bytes=row.size_bytes,
        target=os.fsdecode(row.target),
        digest=row.digest,
        stamp=row.stamp,
    )
