"""The record of the base: the manifest that the sandbox was last known to hold.

A whole record, and after it the changes of later syncs, so that an edit in a large tree writes what it changed. The
whole is written again once the changes are half as large. A process that dies at any moment leaves the base as it was
before, or as it is after the record.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from itertools import islice

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from syncd.core.change_log import ChangeLog
from syncd.core.durable_file import StateFile, Versioned
from syncd.core.warning import SyncWarning
from syncd.model.directory import EMPTY, Entries, rebuilt
from syncd.model.entry_row import StateRow, entry_of, lasting_stamp, row_of
from syncd.model.manifest import Manifest, removed_paths, replaced_entries
from syncd.remote.target import Target

# So many bytes of changes never cause a whole record.
_LEAST_CHANGES_BYTES = 256 << 10
# A larger change always does: it would be in memory as rows, which take five times as much.
_MOST_CHANGE_BYTES = 4 << 20
_ROW_BYTES = 100  # more or less

_Stat = tuple[int, int, int, int] | None  # inode, bytes, times of the content and of the inode; None: no such file


class _DirectoryRow(Struct, array_like=True):
    """The entries of one directory, as a manifest has them in memory."""

    path: bytes
    texts: bytes
    encoded: bytes


class _BaseFile(Versioned, frozen=True, kw_only=True):
    """The whole record."""

    target: Target
    directories: list[_DirectoryRow] = msgspec.field(default_factory=list)
    searched: str = ""


class ManifestsRecord(Versioned, frozen=True, kw_only=True):
    """Manifests of one sandbox, each a list of directories.

    `searched` is the identity of the search for secrets that their contents passed.
    """

    target: Target
    manifests: list[list[_DirectoryRow]] = msgspec.field(default_factory=list)
    searched: str = ""


class _BaseChange(Struct, array_like=True):
    """The rows that are new or other than before, and the paths that are gone."""

    rows: list[StateRow]
    removed: list[bytes]


class Base(Struct, frozen=True):
    """The content of the record."""

    target: Target
    manifest: Manifest
    searched: str


class BaseRecord:
    """The record in one state folder."""

    def __init__(self, folder: str) -> None:
        self._whole = StateFile(folder, "initialized", _BaseFile)
        self._changes = ChangeLog(folder, "initialized-changes")
        self._known: Base | None = None  # what is on disk, as long as the files there are these
        self._files: tuple[_Stat, ...] = ()

    def load(self) -> tuple[Base | None, SyncWarning | None]:
        """Return the base, None if none is recorded, and the warning if a damaged record was set aside."""
        self._known = None
        record, warning = self._whole.load_or_warn()
        if record is None:
            return None, warning
        try:
            manifest = _manifest_of(record.directories)
        except msgspec.MsgspecError:
            return None, self._whole.set_aside("was damaged")
        with contextlib.suppress(msgspec.MsgspecError):  # a change of another version, and all after it
            for packed in self._changes.read(self._whole.identity()):
                change = msgspec.msgpack.decode(packed, type=_BaseChange)
                for path in change.removed:
                    manifest.pop(os.fsdecode(path), None)
                manifest.put((os.fsdecode(row.path), entry_of(row)) for row in change.rows)
        base = Base(record.target, manifest, record.searched)
        self._note(base)
        return base, None

    def save(self, base: Base) -> None:
        """Record the base; it survives a power cut when this returns. Raises `OSError`."""
        known = self._known if self._files == self._files_on_disk() else None
        if known is not None and (known.target, known.searched) == (base.target, base.searched):
            room_bytes = max(_LEAST_CHANGES_BYTES, self._whole.size_bytes() // 2) - self._changes.size_bytes
            change = _change(known.manifest, base.manifest, min(room_bytes, _MOST_CHANGE_BYTES))
            if change is not None:
                self._changes.append(self._whole.identity(), change)
                self._note(base)
                return
        self._known = None
        self._whole.save_encoded(_encoded(base))
        with contextlib.suppress(OSError):
            self._changes.remove()  # they are of the record before, and would only take room
        self._note(base)

    @property
    def identity(self) -> str:
        """The identity of what is on disk; empty if there is no record."""
        return f"{self._whole.identity()}+{self._changes.size_bytes}"

    def remove(self) -> None:
        """Delete the record. Raises `OSError` if a later process could still read it."""
        self._known = None
        self._whole.remove()

    def _note(self, base: Base) -> None:
        """Note that this base is on disk. Changes are not appended to files that someone else damaged since."""
        self._known, self._files = base, self._files_on_disk()

    def _files_on_disk(self) -> tuple[_Stat, ...]:
        return _stat(self._whole.path), _stat(self._changes.path)


def _stat(path: str) -> _Stat:
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _change(before: Manifest, now: Manifest, most_bytes: int) -> bytes | None:
    """Return the change, encoded, None if it has more bytes."""
    most_rows = max(0, most_bytes) // _ROW_BYTES
    rows = [row_of(path, now[path]) for path in islice(replaced_entries(before, now), most_rows + 1)]
    if len(rows) > most_rows:
        return None
    change = msgspec.msgpack.encode(_BaseChange(rows, [os.fsencode(path) for path in removed_paths(before, now)]))
    return change if len(change) <= most_bytes else None


def manifests_record(target: Target, manifests: Iterable[Manifest], searched: str) -> ManifestsRecord:
    """Return the record of these manifests. It shares their bytes, as the first of them may be of a large tree."""
    rows = [
        [_directory_row(path, directory.own) for path, directory in manifest.top.directories()]
        for manifest in manifests
    ]
    return ManifestsRecord(target=target, manifests=rows, searched=searched)


def manifests_of(record: ManifestsRecord) -> list[Manifest]:
    """Return the manifests of a record. Raises `msgspec.MsgspecError`."""
    return [_manifest_of(rows) for rows in record.manifests]


def _manifest_of(rows: Iterable[_DirectoryRow]) -> Manifest:
    """Return the manifest of these directories. Raises `msgspec.MsgspecError`."""
    own = {os.fsdecode(row.path): Entries.stored(row.texts, row.encoded) for row in rows}
    return Manifest.of(rebuilt(EMPTY, own))


def _encoded(base: Base) -> bytearray:
    """Return the record as msgspec encodes a `_BaseFile`. Its rows, of which a tree may have many, are not kept."""
    encoder = msgspec.msgpack.Encoder()
    directories = list(base.manifest.top.directories())
    encoded = bytearray(b"\x84")  # a map of four
    for value in ("version", 1, "target", base.target, "directories"):
        encoded += encoder.encode(value)
    nothing = [None] * len(directories)
    encoded += encoder.encode(nothing)[: -len(nothing)]  # the head of an array
    for path, directory in directories:
        encoder.encode_into(_directory_row(path, _lasting(directory.own)), encoded, -1)
    for value in ("searched", base.searched):
        encoded += encoder.encode(value)
    return encoded


def _lasting(own: Entries) -> Entries:
    """Return the entries without the stamps that are of no use to another process."""
    entries = own.decoded()
    if all(entry.stamp is None or entry.written_back for entry in entries.values()):
        return own
    return Entries({name: replace(entry, stamp=lasting_stamp(entry)) for name, entry in entries.items()})


def _directory_row(path: str, own: Entries) -> _DirectoryRow:
    return _DirectoryRow(os.fsencode(path), own.texts, own.encoded)
