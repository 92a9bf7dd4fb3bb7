"""Records what must be known after a crash: the manifest that the sandbox holds, and how far a later one has come.

`initialized` is written once a sandbox has confirmed that it holds a manifest. `uploaded` is written between upload and
initialize: if the process dies there, the next one need not upload the same bytes again. Both name their sandbox, so a
changed configuration starts without them.

The mark `uncertain` is set before an initialize is requested and removed when its answer is recorded. A request whose
answer is lost may have been carried out: the sandbox may hold the new manifest, or half of it, so that even a manifest
equal to the recorded one must be sent again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.durable_file import MarkerFile, StateFile, Versioned, flush_folder
from syncd.core.warning import SyncWarning
from syncd.remote.target import Target
from syncd.scan.manifest import Entry, Kind, Manifest, Stamp


class StateRow(Struct, array_like=True):
    """A manifest's entry. Paths are bytes, since MessagePack's strings are UTF-8 only."""

    path: bytes
    kind: Kind
    mode: int
    mtime_s: int
    size_bytes: int
    target: bytes
    stamp: Stamp | None
    digest: bytes
    sent_digest: bytes = b""  # records of earlier versions have none


class _ManifestRecord(Versioned, frozen=True, kw_only=True):
    target: Target
    rows: list[StateRow]
    searched: str = ""  # the identity of the rules by which the contents were searched for secrets


class Uploaded(Versioned, frozen=True, kw_only=True):
    """An archive in the bucket that was not initialized yet. `identity` is the archive's own."""

    target: Target
    identity: str
    size_bytes: int
    sha256: str


class SyncState:
    """The records of one workspace. `uncertain`: the sandbox may hold another manifest than the recorded one."""

    def __init__(self, folder: str, searched: str = "") -> None:
        """`searched` is the identity of the search for secrets that contents pass, empty if none is made."""
        self._folder = folder
        self._searched = searched
        self._initialized = StateFile(folder, "initialized", _ManifestRecord)
        cost = "at most one archive is uploaded once more"
        self._uploaded = StateFile(folder, "uploaded", Uploaded, cost)
        cost = "what came unanswered may stay in the sandbox"
        self._possibly_applied = StateFile(folder, "perhaps-there", _ManifestRecord, cost)
        self._mark = MarkerFile(folder, "unsure")
        self._marked = False
        self._lost: list[SyncWarning] = []  # about a damaged record, which is set aside when it is read
        self.uncertain = False

    def initialized(self, target: Target) -> tuple[Manifest | None, list[SyncWarning]]:
        """The last manifest that this sandbox was known to hold, if any; it sets `uncertain` too.

        Entries whose contents were not searched by today's rules come without their stamps: they are read again.
        """
        with contextlib.suppress(OSError):
            flush_folder(self._folder)  # a power cut later on must not undo what a killed process did last
        self.uncertain = self._marked = self._mark.exists
        record = self._recorded()
        if record is None or not record.target.same_sandbox(target):
            return None, self._lost
        manifest = _manifest(record)
        if self._searched not in ("", record.searched):
            manifest = {path: replace(entry, stamp=None) for path, entry in manifest.items()}
        return manifest, []

    def uploaded(self, target: Target) -> Uploaded | None:
        """The archive that only lacks its initialize, if it is in the bucket of this sandbox and region."""
        record = self._uploaded.load()
        return record if record is not None and record.target == target else None

    def record_uploaded(self, target: Target, identity: str, size_bytes: int, sha256: str) -> None:
        """Record that the archive is in the bucket. Raises `OSError`."""
        self._uploaded.save(Uploaded(target=target, identity=identity, size_bytes=size_bytes, sha256=sha256))

    def mark_uncertain(self) -> None:
        """Mark that from now on the sandbox may hold something else than what is recorded.

        The mark is durable when this returns; if there is no room for it, the record is removed instead. Raises
        `OSError` if neither is possible: the next process would trust a record that is no longer true.
        """
        self.uncertain = True
        if not self._marked:
            try:
                self._mark.create()
            except OSError:
                self._initialized.remove()
            self._marked = True

    def possibly_applied(self, target: Target) -> tuple[Manifest, ...]:
        """The entries that may be in this sandbox besides the last manifest that it was known to hold.

        One manifest for each version of a path: what several unanswered initializes put there.
        """
        record = self._possibly_applied.load()
        if record is None or not record.target.same_sandbox(target):
            return ()
        manifests: list[Manifest] = []
        for row in record.rows:
            path = os.fsdecode(row.path)
            manifest = next((manifest for manifest in manifests if path not in manifest), None)
            if manifest is None:
                manifests.append(manifest := {})
            manifest[path] = entry_of(row)
        return tuple(manifests)

    def record_possibly_applied(self, target: Target, manifests: Iterable[Manifest]) -> None:
        """Record that an initialize with the last of these is about to be requested. Raises `OSError`."""
        rows = [row for manifest in manifests for row in _rows(manifest)]
        self._possibly_applied.save(_ManifestRecord(target=target, rows=rows, searched=self._searched))

    def recorded_target(self) -> Target | None:
        """The sandbox of the last manifest that is recorded."""
        record = self._recorded()
        return record.target if record is not None else None

    def _recorded(self) -> _ManifestRecord | None:
        record, warning = self._initialized.load_or_warn()
        if warning is not None:
            self._lost = [warning]
        return record

    def record_initialized(self, target: Target, manifest: Manifest) -> None:
        """Record that the sandbox holds the manifest. Raises `OSError`; this process is certain of it all the same."""
        self.uncertain = self._marked = False
        self._initialized.save(self._record(target, manifest))
        # Each of these that stays costs the next process an unnecessary request.
        for forget in (self._mark.remove, self._uploaded.remove, self._possibly_applied.remove):
            with contextlib.suppress(OSError):
                forget()

    def _record(self, target: Target, manifest: Manifest) -> _ManifestRecord:
        return _ManifestRecord(target=target, rows=_rows(manifest), searched=self._searched)

    def record_base(self, target: Target, manifest: Manifest) -> None:
        """Record a base that was changed without a sync; what is uncertain stays uncertain. Raises `OSError`."""
        self._initialized.save(self._record(target, manifest))

    def forget_upload(self) -> None:
        """Record that the archive in the bucket, if any, is no longer the uploaded one. Raises `OSError`."""
        self._uploaded.remove()


def _manifest(record: _ManifestRecord) -> Manifest:
    return {os.fsdecode(row.path): entry_of(row) for row in record.rows}


def _rows(manifest: Manifest) -> list[StateRow]:
    return [row_of(path, entry) for path, entry in manifest.items()]


def row_of(path: str, entry: Entry) -> StateRow:
    """Return the row of an entry."""
    target = os.fsencode(entry.target)
    return StateRow(os.fsencode(path), entry.kind, entry.mode, entry.mtime_s, entry.size_bytes, target, *_known(entry))


def _known(entry: Entry) -> tuple[Stamp | None, bytes, bytes]:
    # A stamp that a later write may have left unchanged is of no use to a process that did not see that write.
    return entry.stamp if entry.written_back else None, entry.digest, entry.sent_digest


def entry_of(row: StateRow) -> Entry:
    """Return the entry of a row."""
    size_bytes, target, stamp = row.size_bytes, os.fsdecode(row.target), row.stamp
    known = stamp, row.digest, row.sent_digest, stamp is not None
    return Entry(row.kind, row.mode, row.mtime_s, size_bytes, target, *known)
