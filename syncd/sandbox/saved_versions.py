"""Keeps the agent's versions at home before they are overwritten, removed, or end with their sandbox.

Each version is a folder `saved/ID` with a file `record`, which lists its paths, and a file for each different content,
named by its digest. The record is written last, after all else was flushed, and removed first: a folder without a
record was made or dropped by half, and the next `save` removes it. A content that an earlier version has is a hard link
to it.

No lock of the workspace is needed: while one process saves, others list, restore, drop or save. Who fills or removes a
version's folder has locked it, so that no other process removes it, or a new folder of the same name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from syncd.archive.extraction import Extracted, extract_members
from syncd.archive.tar_reader import Member, MemberKind
from syncd.core.choices import SAVED_DAYS
from syncd.core.clock import Clock, utc
from syncd.core.durable_file import StateFile, Versioned, flush_folder, write_whole
from syncd.core.errors import NeedsPerson
from syncd.core.text import shown_path
from syncd.model.entry import (
    Kind,
    SeenEntry,
    arrived_digest,
    is_savable,
)
from syncd.sandbox.saved_versions_rules import (
    SavedPath,
    SavedVersion,
    SentEntry,
    Why,
    expired,
    next_count,
    saved_at,
    version_id,
)
from syncd.selection.safe_open import open_directory, open_file

_RECORD = "record"
_COST = "the contents beside it can only be searched by hand until they expire"
_BLOCK_BYTES = 1 << 20
# A record has room for 64 bits; the time of a hostile answer may be any number.
_LATEST_S = 1 << 62
_MEMBER_KINDS = {
    Kind.FILE: MemberKind.FILE,
    Kind.DIRECTORY: MemberKind.DIRECTORY,
    Kind.SYMLINK: MemberKind.SYMLINK,
}


class _SavedRow(Struct, array_like=True):
    """One path of a version, with names as bytes."""

    path: bytes
    kind: Kind
    mode: int
    mtime_s: int
    size_bytes: int
    digest: bytes
    target: bytes
    base_digest: bytes = b""
    base_mode: int = 0
    base_kind: Kind | None = None
    base_target: bytes = b""


class _SavedRecord(Versioned, frozen=True, kw_only=True):
    why: Why
    sandbox_id: str
    rows: list[_SavedRow]
    days: int | UnsetType = UNSET
    counted_at_s: int | UnsetType = UNSET


class SavedVersions:
    """The saved versions of one workspace, below its state folder."""

    def __init__(self, folder: str, clock: Clock) -> None:
        self._folder = os.path.join(folder, "saved")
        self._clock = clock
        self._count = 0
        self._known: dict[str, SavedVersion] = {}  # but for its age a version does not change after it was saved

    @property
    def count(self) -> int:
        """The number of versions, without reading them; the last one known if the folder cannot be listed now."""
        with contextlib.suppress(OSError):
            self._count = sum(self._exists(each) for each in self._ids())
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
        self._make_folder()
        self._remove_half_made()
        at = utc(self._clock.wall_s())
        new_id, descriptor = self._new_version(at)
        try:
            paths = self._write_contents(new_id, wanted)
            paths = self._write_bases(new_id, paths, bases)
            flush_folder(self._path(new_id))
            flush_folder(self._folder)
            self._record(new_id).save(_record_of(SavedVersion(new_id, at, why, sandbox_id, at, paths)))
        except BaseException:
            with contextlib.suppress(OSError):  # the first failure is the one to report
                self._discard(new_id)
            raise
        finally:
            os.close(descriptor)
        version = self._load(new_id)
        if version is None:
            raise FileNotFoundError(errno.ENOENT, "the saved version was dropped at once", self._path(new_id))
        return version

    def all(self) -> list[SavedVersion]:
        """Return the versions, the newest first. A damaged record is set aside, named in the log, and left out."""
        found = (self._load(each) for each in self._ids())
        self._known = {version.id: version for version in found if version is not None}
        return sorted(self._known.values(), key=lambda version: version.id, reverse=True)

    def find(self, wanted: str) -> SavedVersion | None:
        """Return the version of that id, None if there is none."""
        return self._load(wanted) if saved_at(wanted) is not None else None

    def holder_of(self, path: str, digest: bytes) -> str | None:
        """Return the id of a version that has a file of that content at that path, undamaged, and not a day old yet.

        One that is older may expire soon.
        """
        for version in self.all():
            saved = version.paths.get(path)
            is_wanted = saved is not None and saved.kind is Kind.FILE and saved.digest == digest
            if is_wanted and not version.days and self._is_whole(version.id, digest):
                return version.id
        return None

    def damaged(self, version: SavedVersion) -> list[str]:
        """Return the paths whose content is gone or damaged."""
        whole = {digest: self._is_whole(version.id, digest) for digest in version.contents()}
        return [path for path, saved in version.paths.items() if not whole.get(saved.digest, True)]

    def drop(self, unwanted: str) -> bool:
        """Remove a version for good, also one whose record is damaged. False if there was none. Raises `OSError`."""
        return saved_at(unwanted) is not None and self._remove(unwanted)

    def restore(self, wanted: str, destination: str, check: Callable[[], None] = lambda: None) -> Extracted:
        """Create a version's paths in a folder that is new or empty; the result says which were left out.

        A content that was damaged on this disk is left out, and a link that leads out of the folder. Raises
        `NeedsPerson` for an unknown id too, else as `archive.extraction.extract`; `check` is called between blocks.
        """
        version = self.find(wanted)
        if version is None:
            raise unknown_version(wanted)
        members = ((_member(path, saved), self._blocks(version, saved)) for path, saved in version.paths.items())
        return extract_members(members, destination, check)

    def expire(self, now: datetime, spared: Collection[str] = ()) -> list[SavedVersion]:
        """Count the days up to `now` (aware UTC), drop the versions that `expired` names, and return them.

        One whose record is damaged has no age: it goes with a later one. `spared` ids stay. Raises `OSError`.
        """
        for version in self.all():
            self._count_days(version, now)
        dropped = [version for version in expired(self.all()) if version.id not in spared and self._remove(version.id)]
        newest = max((version.id for version in dropped if version.days >= SAVED_DAYS), default="")
        for each in self._ids():
            if each < newest and self._load(each) is None:
                self._remove(each)
        return dropped

    def _count_days(self, version: SavedVersion, now: datetime) -> None:
        if not _is_due(version, now):
            return
        with contextlib.suppress(OSError):  # it is counted the next time
            descriptor = open_directory(self._path(version.id), None)
            try:
                _wait_for_lock(descriptor)
                self._known.pop(version.id, None)
                latest = self._load(version.id) if _has_name(descriptor, self._path(version.id)) else None
                if latest is not None and _is_due(latest, now):  # no other process has counted it
                    days, counted_at = next_count(latest.days, latest.counted_at, now)
                    self._record(version.id).save(_record_of(latest, days, int(counted_at.timestamp())))
            finally:
                os.close(descriptor)

    # -- folders

    def _path(self, id_: str) -> str:
        return os.path.join(self._folder, id_)

    def _content(self, id_: str, digest: bytes) -> str:
        return os.path.join(self._path(id_), digest.hex())

    def _record(self, id_: str) -> StateFile[_SavedRecord]:
        return StateFile(self._path(id_), _RECORD, _SavedRecord, _COST)

    def _ids(self) -> list[str]:
        """Return the names of all folders that are versions, or parts of one."""
        try:
            with os.scandir(self._folder) as entries:
                return [each.name for each in entries if saved_at(each.name) and each.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    def _exists(self, id_: str) -> bool:
        return os.path.lexists(self._record(id_).path)

    def _has_record(self, id_: str) -> bool:
        """True also if the record is damaged: then the contents are kept for a person to look at."""
        return self._exists(id_) or os.path.lexists(f"{self._record(id_).path}.damaged")

    def _make_folder(self) -> None:
        try:
            os.mkdir(self._folder, 0o700)
        except FileExistsError:
            return
        flush_folder(os.path.dirname(self._folder))

    def _new_version(self, at: datetime) -> tuple[str, int]:
        """Make a new folder, and return its id and its descriptor, which tells others that it is in use."""
        for number in itertools.count():
            new_id = version_id(at, number)
            try:
                os.mkdir(self._path(new_id), 0o700)
                descriptor = open_directory(self._path(new_id), None)
            except (FileExistsError, FileNotFoundError):
                continue  # of another process, or removed by one that took it for half made
            # With a record, it is whole already: of another process that locked it before this one could.
            if _lock(descriptor) and _has_name(descriptor, self._path(new_id)) and not self._has_record(new_id):
                return new_id, descriptor
            os.close(descriptor)
        raise AssertionError("unreachable")

    def _remove_half_made(self) -> None:
        """Remove what processes that died while saving or dropping have left."""
        for each in self._ids():
            if self._has_record(each):
                continue
            try:
                descriptor = open_directory(self._path(each), None)
            except OSError:
                continue
            try:
                if _lock(descriptor) and _has_name(descriptor, self._path(each)) and not self._has_record(each):
                    shutil.rmtree(self._path(each), ignore_errors=True)
            finally:
                os.close(descriptor)

    def _remove(self, id_: str) -> bool:
        """Remove a version. False if there is none by now. Raises `OSError`."""
        try:
            descriptor = open_directory(self._path(id_), None)
        except FileNotFoundError:
            return False
        try:
            _wait_for_lock(descriptor)
            if not _has_name(descriptor, self._path(id_)) or not self._has_record(id_):
                return False
            self._discard(id_)
        finally:
            os.close(descriptor)
        return True

    def _discard(self, id_: str) -> None:
        """Remove a locked folder. Its record goes first, so that no version is ever listed without its contents."""
        self._known.pop(id_, None)
        self._record(id_).remove()
        shutil.rmtree(self._path(id_), ignore_errors=True)

    # -- records and contents

    def _load(self, id_: str) -> SavedVersion | None:
        if id_ in self._known and self._exists(id_):
            return self._known[id_]
        at, record = saved_at(id_), self._record(id_).load()
        return None if at is None or record is None else _version_of(id_, at, record)

    def _write_contents(self, id_: str, wanted: Mapping[str, SeenEntry]) -> dict[str, SavedPath]:
        """Write the contents durably, and return the paths."""
        earlier = {digest: version.id for version in self.all() for digest in version.contents()}
        paths: dict[str, SavedPath] = {}
        written: dict[bytes, int] = {}
        for path, entry in wanted.items():
            size_bytes, digest = 0, b""
            if entry.kind is Kind.FILE:
                digest = entry.digest
                if digest in written:
                    size_bytes = written[digest]
                elif digest in earlier and self._link(earlier[digest], id_, digest):
                    size_bytes = os.path.getsize(self._content(id_, digest))
                else:
                    size_bytes, digest = self._copy(id_, entry)
                    written[digest] = size_bytes
            paths[path] = SavedPath(
                entry.kind,
                entry.mode & 0o777,
                min(max(entry.mtime_s, -_LATEST_S), _LATEST_S),
                size_bytes,
                digest,
                entry.target,
            )
        # All are written before the first is flushed: a journaling file system writes the others' data with it.
        for digest in written:
            _flush(self._content(id_, digest))
        return paths

    def _write_bases(
        self, id_: str, paths: dict[str, SavedPath], bases: Mapping[str, SentEntry]
    ) -> dict[str, SavedPath]:
        """Write what had been sent, and return the paths with it. A merge can do without the bytes: no flush."""
        found = dict(paths)
        for path, (entry, content) in bases.items():
            digest = arrived_digest(entry) if entry.kind is Kind.FILE else b""
            if path not in found or (entry.kind is Kind.FILE and not digest):
                continue
            if content is not None and not os.path.lexists(self._content(id_, digest)):
                with contextlib.suppress(OSError):
                    write_whole(self._content(id_, digest), content)
            found[path] = replace(
                found[path],
                base_kind=entry.kind,
                base_mode=entry.mode,
                base_digest=digest,
                base_target=entry.target,
            )
        return found

    def content(self, version: SavedVersion, digest: bytes) -> bytes | None:
        """Return a content that the version keeps, also what had been sent; None if it is gone or damaged."""
        try:
            return b"".join(_verified_blocks(self._content(version.id, digest), digest))
        except OSError:
            return None

    def _is_whole(self, id_: str, digest: bytes) -> bool:
        try:
            for _ in _verified_blocks(self._content(id_, digest), digest):
                pass
        except OSError:
            return False
        return True

    def content_path(self, version: SavedVersion, path: str) -> str:
        """Return the file that holds the content of one of the version's files."""
        return self._content(version.id, version.paths[path].digest)

    def _link(self, earlier_id: str, id_: str, digest: bytes) -> bool:
        """Link a content of an earlier version into this one. False if it is damaged, or cannot be linked."""
        source, target = self._content(earlier_id, digest), self._content(id_, digest)
        if os.path.lexists(target):
            return True  # for another path
        if not self._is_whole(earlier_id, digest):
            return False
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:
            return False
        return True

    def _copy(self, id_: str, entry: SeenEntry) -> tuple[int, bytes]:
        """Copy an entry's content into a version, and return its size and digest. Raises `OSError`."""
        draft = f"{self._path(id_)}/content.new"
        hashed = hashlib.sha256()
        size_bytes = 0
        source, _ = open_file(entry.copy, None)
        with os.fdopen(source, "rb", buffering=0) as file:
            target = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                while block := file.read(_BLOCK_BYTES):
                    hashed.update(block)
                    size_bytes += len(block)
                    view = memoryview(block)
                    while view:
                        view = view[os.write(target, view) :]
            finally:
                os.close(target)
        digest = hashed.digest()
        if entry.digest not in (b"", digest):
            raise OSError(errno.EIO, "the copy differs from what was found in the sandbox", entry.copy)
        os.rename(draft, self._content(id_, digest))
        return size_bytes, digest

    def _blocks(self, version: SavedVersion, saved: SavedPath) -> Iterator[bytes]:
        if saved.kind is Kind.FILE:
            yield from _verified_blocks(self._content(version.id, saved.digest), saved.digest)


def _is_due(version: SavedVersion, now: datetime) -> bool:
    return next_count(version.days, version.counted_at, now) != (version.days, version.counted_at)


def unknown_version(id_: str) -> NeedsPerson:
    """Return the error for an id that no version has."""
    return NeedsPerson(f"there is no saved version {shown_path(id_)!r}", "`syncd saved` lists those that there are")


def _record_of(
    version: SavedVersion, days: int | UnsetType = UNSET, counted_at_s: int | UnsetType = UNSET
) -> _SavedRecord:
    rows = [
        _SavedRow(
            os.fsencode(path),
            saved.kind,
            saved.mode,
            saved.mtime_s,
            saved.size_bytes,
            saved.digest,
            os.fsencode(saved.target),
            saved.base_digest,
            saved.base_mode,
            saved.base_kind,
            os.fsencode(saved.base_target),
        )
        for path, saved in version.paths.items()
    ]
    return _SavedRecord(why=version.why, sandbox_id=version.sandbox_id, rows=rows, days=days, counted_at_s=counted_at_s)


def _version_of(id_: str, at: datetime, record: _SavedRecord) -> SavedVersion:
    paths = {
        os.fsdecode(row.path): SavedPath(
            row.kind,
            row.mode,
            row.mtime_s,
            row.size_bytes,
            row.digest,
            os.fsdecode(row.target),
            # A version of an earlier syncd has only the digest and the mode of a file.
            Kind.FILE if row.base_digest else row.base_kind,
            row.base_mode,
            row.base_digest,
            os.fsdecode(row.base_target),
        )
        for row in record.rows
    }
    days = 0 if record.days is UNSET else record.days
    counted_at = at if record.counted_at_s is UNSET else utc(record.counted_at_s)
    return SavedVersion(id_, at, record.why, record.sandbox_id, counted_at, paths, days)


def _member(path: str, saved: SavedPath) -> Member:
    return Member(path, _MEMBER_KINDS[saved.kind], saved.mode, saved.mtime_s, saved.size_bytes, saved.target)


def _verified_blocks(path: str, digest: bytes) -> Iterator[bytes]:
    """Yield a file's content. Raises `OSError`, at the end also if it does not have that digest."""
    hashed = hashlib.sha256()
    descriptor, _ = open_file(path, None)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            hashed.update(block)
            yield block
    if hashed.digest() != digest:
        raise OSError(errno.EBADMSG, "its saved content was damaged on this disk", path)


def _flush(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open folder until it is closed. False if another process has locked it.

    True also where the file system has no such locks: then a folder counts as in use by nobody else.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _wait_for_lock(descriptor: int) -> None:
    """Lock an open folder once no other process has: each holds the lock only while it writes or removes a version."""
    with contextlib.suppress(OSError):  # as above
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _has_name(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
