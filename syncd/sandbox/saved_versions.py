"""Keeps the agent's versions at home before they are overwritten, removed, or end with their sandbox.

A version is a row of the database, committed once the contents that it names are on the disk. Nothing but the
database's own locking is needed: while one process saves, others list, restore, drop or save.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from zlib import crc32

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from syncd.archive.base_store import BaseStore
from syncd.archive.extraction import Extracted, Member, MemberKind, extract_members
from syncd.core.choices import SAVED_BYTES, SAVED_DAYS
from syncd.core.clock import Clock, utc
from syncd.core.settings import MAIN
from syncd.core.text import counted, shown_path
from syncd.model.entry import Entry, Kind, SeenEntry, Stamp, arrived_digest, is_savable, same, with_copy
from syncd.store.blobs import Blobs
from syncd.store.state_db import StateDb

_DAY_S = 86_400
_ID_TIME = "%Y%m%d-%H%M%S"


class Why(StrEnum):
    """The reason for which a version was saved."""

    OVERWRITTEN = "overwritten"
    REMOVED = "removed"
    SANDBOX_ENDED = "sandbox-ended"
    RELEASED = "released"
    CONFLICT = "conflict"


SentEntry = tuple[Entry, bytes | None]
"""An entry that syncd had sent as a path, with a file's bytes where they are known and small."""


class SavedVersion(Struct, frozen=True):
    """The agent's version of some paths, by path in the order of names, saved at `at` (aware UTC), as its id says.

    `sandbox_name` is the name that the sandbox had in the configuration.
    `bases` are what syncd had sent as these paths, as far as it is known and a comparison needs it.
    `days` were counted since, the last of them at `counted_at_s`; a clock that jumps makes one day at most.
    """

    id: str
    at: datetime
    why: Why
    sandbox_id: str
    counted_at_s: int
    paths: Mapping[str, Entry] = field(default_factory=dict)
    bases: Mapping[str, Entry] = field(default_factory=dict)
    days: int = 0
    sandbox_name: str = MAIN

    @property
    def size_bytes(self) -> int:
        """The sum of the files' sizes."""
        return sum(path.size_bytes for path in self.paths.values())

    def contents(self) -> dict[bytes, int]:
        """Return the size of each different content, by digest."""
        return {path.digest: path.size_bytes for path in self.paths.values() if path.kind is Kind.FILE}


def aged(version: SavedVersion, now_s: float) -> SavedVersion:
    """Return the version with the day that has passed since one was counted last, or the same object.

    However much later it is: the machine was off, or its clock is wrong. A clock that was set back counts anew.
    """
    if now_s < version.counted_at_s:
        return replace(version, counted_at_s=int(now_s))
    if now_s - version.counted_at_s >= _DAY_S:
        return replace(version, days=version.days + 1, counted_at_s=int(now_s))
    return version


def expired(versions: Iterable[SavedVersion]) -> list[SavedVersion]:
    """Return the versions to drop, the oldest first, of `versions` in any order.

    Those of `SAVED_DAYS` go, then the oldest until the others have at most `SAVED_BYTES`. The newest never goes
    for its size. A content that several versions have is on disk once, so it counts once.
    """
    kept: set[bytes] = set()
    size_bytes = 0
    dropped = []
    for position, version in enumerate(sorted(versions, key=lambda version: version.id, reverse=True)):
        if version.days >= SAVED_DAYS:
            dropped.append(version)
            continue
        more = {digest: size for digest, size in version.contents().items() if digest not in kept}
        size_bytes += sum(more.values())
        if position > 0 and size_bytes > SAVED_BYTES:
            dropped.append(version)
        else:
            kept.update(more)
    return dropped[::-1]


_log = logging.getLogger("syncd.saved")
# A row has room for 64 bits; the time of a hostile answer may be any number.
_LATEST_S = 1 << 62
_MEMBER_KINDS = {Kind.FILE: MemberKind.FILE, Kind.DIRECTORY: MemberKind.DIRECTORY, Kind.SYMLINK: MemberKind.SYMLINK}


class _EntryRow(Struct, array_like=True):
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


class _SavedRecord(Struct, array_like=True):
    why: Why
    sandbox_id: str
    days: int
    counted_at_s: int
    paths: list[_EntryRow]
    bases: list[_EntryRow]
    sandbox_name: str = MAIN  # `StateDb.saved_of` knows this place


class SavedVersions:
    """The saved versions of one workspace, in its database, with their contents beside it.

    `sandbox_name` is the name in the configuration of the sandbox whose versions are saved.
    """

    def __init__(self, db: StateDb, clock: Clock, sandbox_name: str = MAIN) -> None:
        self._db = db
        self._name = sandbox_name
        self._blobs = Blobs(db)
        self._clock = clock
        self._count, self._counted = 0, list[tuple[bytes, int]]()  # and the rows of which that is the number
        self._known: dict[tuple[bytes, int], SavedVersion | None] = {}  # by id and checksum; None: damaged

    @property
    def count(self) -> int:
        """The number of this sandbox's versions, which are read only if there are others; if that fails, as before."""
        with contextlib.suppress(OSError):
            rows = self._rows()
            if rows != self._counted:
                self._counted, self._count = rows, self._db.saved_of().count(self._name)
        return self._count

    def save(
        self,
        why: Why,
        sandbox_id: str,
        entries: Mapping[str, SeenEntry],
        bases: Mapping[str, SentEntry] = MappingProxyType({}),
    ) -> SavedVersion:
        """Save these entries as one version, which survives a power cut when this returns.

        The contents are read from the entries' `copy`. Entries that `is_savable` refuses are not in the version.
        `bases` are what syncd had sent as these paths: what is here as it was sent can be replaced, the rest be merged.

        Raises `OSError`, also if a copy does not have the entry's digest, and `ValueError` if nothing can be saved;
        then no version was saved.
        """
        wanted = {path: entry for path, entry in sorted(entries.items()) if is_savable(entry)}
        if not wanted:
            raise ValueError("no entry with a content to save")
        self._blobs.clean_up(self._clock.wall_s())
        at, written = utc(self._clock.wall_s()), set[bytes]()
        try:
            paths = {path: self._write(entry, written) for path, entry in wanted.items()}
            known = {path: base for path, base in bases.items() if path in paths and _is_known(base[0])}
            sent = {path: self._write_base(*base, written) for path, base in known.items()}
            self._blobs.flush(written)
            with self._db.transaction():
                files = {entry.digest: path for path, entry in paths.items() if entry.kind is Kind.FILE}
                gone = {digest: path for digest, path in files.items() if not self._blobs.has(digest)}
                for digest, path in gone.items():  # with a version that another process dropped meanwhile
                    self._blobs.add(wanted[path].copy, digest)
                self._blobs.flush(gone)
                taken = dict(self._rows())
                ids = (f"{at:{_ID_TIME}}-{number:02x}" for number in itertools.count())
                new = next(each for each in ids if each.encode() not in taken)
                counted_at_s = int(at.timestamp())
                version = SavedVersion(new, at, why, sandbox_id, counted_at_s, paths, sent, sandbox_name=self._name)
                self._put(version)
                digests = {entry.digest for entry in (*paths.values(), *sent.values())}
                self._blobs.hold(version.id.encode(), digests - {b""})
        except BaseException:
            self._blobs.clean_up(self._clock.wall_s(), written)
            raise
        return version

    def all(self) -> list[SavedVersion]:
        """Return the versions, the newest first. A damaged one is named in the log, and left out. Raises `OSError`."""
        self._known = {row: self._known[row] if row in self._known else self._load(*row) for row in self._rows()}
        return [version for version in self._known.values() if version is not None]

    def find(self, wanted: str) -> SavedVersion | None:
        """Return the version of that id, None if there is none. Raises `OSError`."""
        return next((version for version in self.all() if version.id == wanted), None)

    def holders(self, wanted: Mapping[str, Entry]) -> dict[str, str]:
        """Return the ids of versions of this sandbox, not a day old yet, that have these paths like that, undamaged.

        One that is older may expire soon. A path is lacking also if that cannot be found out.
        """
        found: dict[str, str] = {}
        with contextlib.suppress(OSError):
            for version in self.all():
                if version.sandbox_name != self._name or version.days:
                    continue
                for path in version.paths.keys() & wanted.keys():
                    there = wanted[path]
                    if path in found or not same(version.paths[path], there):
                        continue
                    if there.kind is not Kind.FILE or self._blobs.is_whole(arrived_digest(there)):
                        found[path] = version.id
        return found

    def damaged(self, version: SavedVersion) -> list[str]:
        """Return the paths whose content is gone or damaged."""
        whole = {digest: self._blobs.is_whole(digest) for digest in version.contents()}
        return [path for path, saved in version.paths.items() if not whole.get(saved.digest, True)]

    def seen(self, version: SavedVersion, path: str) -> SeenEntry:
        """Return what a version has at a path as a look would, with the file of its content."""
        saved = version.paths[path]
        return with_copy(saved, self._blobs.path(saved.digest) if saved.kind is Kind.FILE else "")

    def drop(self, unwanted: str) -> bool:
        """Remove a version for good, also a damaged one. False if there was none. Raises `OSError`."""
        id_ = os.fsencode(unwanted)
        if id_ not in dict(self._rows()):
            return False
        with self._db.transaction():
            self._remove(id_)
        self._blobs.clean_up(self._clock.wall_s())
        return True

    def restore(self, version: SavedVersion, destination: str, check: Callable[[], None] = lambda: None) -> Extracted:
        """Create a version's paths in a folder that is new or empty; the result says which were left out.

        A content that was damaged on this disk is left out, and a link that leads out of the folder. Raises as
        `archive.extraction.extract`; `check` is called between blocks.
        """
        members = ((_member(path, saved), self._blocks(saved)) for path, saved in version.paths.items())
        return extract_members(members, destination, check)

    def expire(self, spared: Collection[str] = ()) -> list[SavedVersion]:
        """Count the days up to now, drop the versions that `expired` names, and return them.

        A damaged one has no age: it goes with a later one. `spared` ids stay. Raises `OSError`.
        """
        versions, now_s = self.all(), self._clock.wall_s()
        if not expired(versions) and all(aged(version, now_s) is version for version in versions):
            return []
        with self._db.transaction():
            for version in self.all():
                if (later := aged(version, now_s)) is not version:
                    self._put(later)
            dropped = [version for version in expired(self.all()) if version.id not in spared]
            newest = max((version.id.encode() for version in dropped if version.days >= SAVED_DAYS), default=b"")
            damaged = [id_ for (id_, _), version in self._known.items() if version is None and id_ < newest]
            for id_ in (*(version.id.encode() for version in dropped), *damaged):
                self._remove(id_)
        if dropped:
            self._blobs.clean_up(self._clock.wall_s())
        return dropped

    # -- rows and contents

    def _rows(self) -> list[tuple[bytes, int]]:
        """Return the id and the checksum of each version, the newest first. Raises `OSError`."""
        return self._db.rows("SELECT id, checksum FROM saved WHERE typeof(id) = 'blob' ORDER BY id DESC")

    def _load(self, id_: bytes, checksum: int) -> SavedVersion | None:
        for (value,) in self._db.rows("SELECT value FROM saved WHERE id = ?", id_):
            with contextlib.suppress(msgspec.MsgspecError, ValueError, TypeError):
                if _checksum(id_, value) == checksum:
                    return _version(id_.decode(), msgspec.msgpack.decode(value, type=_SavedRecord))
            cost = "its contents can only be searched by hand until they expire"
            _log.warning("the saved version %s was damaged: %s", shown_path(os.fsdecode(id_)), cost)
        return None

    def _put(self, version: SavedVersion) -> None:
        paths, bases = ([_row_of(*each) for each in entries.items()] for entries in (version.paths, version.bases))
        days, at_s, name = version.days, version.counted_at_s, version.sandbox_name
        record = _SavedRecord(version.why, version.sandbox_id, days, at_s, paths, bases, name)
        id_, value = version.id.encode(), msgspec.msgpack.encode(record)
        self._db.change("INSERT OR REPLACE INTO saved VALUES (?, ?, ?)", id_, _checksum(id_, value), value)

    def _remove(self, id_: bytes) -> None:
        self._db.change("DELETE FROM saved WHERE id = ?", id_)
        self._blobs.let_go(id_)

    def _write(self, entry: SeenEntry, written: set[bytes]) -> Entry:
        """Write the entry's content, note its digest in `written`, and return what is saved of it. Raises `OSError`."""
        digest, size_bytes = b"", 0
        if entry.kind is Kind.FILE:
            digest, size_bytes = self._blobs.add(entry.copy, entry.digest)
            written.add(digest)
        mtime_s = min(max(entry.mtime_s, -_LATEST_S), _LATEST_S)
        return Entry(entry.kind, entry.mode & 0o777, mtime_s, size_bytes, entry.target, digest=digest)

    def _write_base(self, entry: Entry, content: bytes | None, written: set[bytes]) -> Entry:
        """Do the same for what had been sent; a merge can do without its bytes."""
        digest = arrived_digest(entry)
        if content is not None and digest:
            with contextlib.suppress(OSError):
                self._blobs.add_bytes(content, digest)
                written.add(digest)
        return Entry(entry.kind, entry.mode, target=entry.target, digest=digest)

    def _blocks(self, saved: Entry) -> Iterator[bytes]:
        if saved.kind is Kind.FILE:
            yield from self._blobs.blocks(saved.digest)


def _is_known(base: Entry) -> bool:
    return base.kind is not Kind.FILE or arrived_digest(base) != b""


def _checksum(key: bytes, value: bytes) -> int:
    return crc32(value, crc32(key))


def _version(id_: str, record: _SavedRecord) -> SavedVersion:
    paths, bases = ({os.fsdecode(row.path): _entry_of(row) for row in rows} for rows in (record.paths, record.bases))
    at = datetime.strptime(id_.rpartition("-")[0], _ID_TIME).replace(tzinfo=UTC)
    why, name = record.why, record.sandbox_name
    return SavedVersion(id_, at, why, record.sandbox_id, record.counted_at_s, paths, bases, record.days, name)


def _row_of(path: str, entry: Entry) -> _EntryRow:
    target = os.fsencode(entry.target)
    known = entry.stamp, entry.digest, entry.sent_digest
    return _EntryRow(os.fsencode(path), entry.kind, entry.mode, entry.mtime_s, entry.size_bytes, target, *known)


def _entry_of(row: _EntryRow) -> Entry:
    known = row.stamp, row.digest, row.sent_digest
    return Entry(row.kind, row.mode, row.mtime_s, row.size_bytes, os.fsdecode(row.target), *known)


def _member(path: str, saved: Entry) -> Member:
    return Member(path, _MEMBER_KINDS[saved.kind], saved.mode, saved.mtime_s, saved.size_bytes, saved.target)


# -- what a sync saves

# Before a sandbox ends there is no time to read the bytes of more that had been sent.
_HURRIED, _MOST_BASES = (Why.SANDBOX_ENDED, Why.RELEASED), 1000
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class VersionSaver(Struct, eq=False):
    """Saves versions of one sandbox's, but none that is saved already. What a sync relies on stays until its end.

    `not_kept` is the last reason why one could not be saved.
    """

    saved_versions: SavedVersions
    sandbox_id: str
    base_store: BaseStore
    not_kept: str = ""
    _paths: dict[Why, list[str]] = field(default_factory=dict)  # that were saved
    _relied_on: set[str] = field(default_factory=set)  # the versions without which this sync loses something

    def save(
        self,
        why: Why,
        versions: Mapping[str, SeenEntry],
        base_of: Callable[[str], Entry | None] = lambda _: None,
    ) -> frozenset[str]:
        """Save these versions. Return the paths of those that cannot be saved here.

        `base_of` returns what had been sent as a path, for a merge, if it is known.
        """
        savable = {path: there for path, there in versions.items() if is_savable(there)}
        held = self.saved_versions.holders(savable)
        self._relied_on.update(held.values())
        new = {path: there for path, there in savable.items() if path not in held}
        if not new:
            return frozenset()
        try:
            bases: dict[str, SentEntry] = {}
            reads = why not in _HURRIED or len(new) <= _MOST_BASES
            for path in new:
                if (entry := base_of(path)) is not None:
                    bases[path] = entry, self.base_store.get(path, arrived_digest(entry)) if reads else None
            saved = self.saved_versions.save(why, self.sandbox_id, new, bases)
        except OSError as failure:
            if len(new) > 1:  # a part of them may well be saved
                paths = sorted(new, key=lambda path: new[path].size_bytes)
                small = {path: new.pop(path) for path in paths[: len(paths) // 2]}
                failed = self.save(why, small, base_of)
                # Where a smaller one has no room, no larger one has.
                return failed.union(new if failed and failure.errno in _NO_ROOM else self.save(why, new, base_of))
            self.not_kept = f"the saved versions cannot be written ({failure.strerror or failure})"
            _log.warning("the agent's version of '%s' cannot be saved (%s)", shown_path(min(new)), failure)
            return frozenset(new)
        self._paths.setdefault(why, []).extend(saved.paths)
        self._relied_on.add(saved.id)
        _log.warning("saved the agent's version of %s as %s (%s)", counted(len(new), "path"), saved.id, why.value)
        return frozenset()

    def take(self) -> dict[Why, list[str]]:
        """Return the paths of what was saved since the last call, for each reason, and drop what has expired.

        What was saved since then, or was found to be, is not dropped.
        """
        with contextlib.suppress(OSError):
            self.saved_versions.expire(self._relied_on)
        self._relied_on = set()
        saved, self._paths = self._paths, {}
        return saved


def why_unsaved(there: SeenEntry, not_kept: str) -> str:
    """Return the reason why this version was not saved, for people; `not_kept` is that of this machine, if any."""
    if there.unstable:
        return "it is still being written"
    if there.kind is Kind.FILE:
        too_large = there.size_bytes > SAVED_BYTES
        return "it is too large" if too_large else not_kept or "its content could not be copied there"
    if there.kind is Kind.DIRECTORY:
        return "a directory has its place"
    if there.kind is Kind.UNREAD:
        return "it cannot be read there, or not in time"
    return not_kept or "it is no file"
