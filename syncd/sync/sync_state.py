"""Keeps what must be known after a crash: which manifest the sandbox holds, and how far a later one has come.

`initialized` is written once a sandbox has answered that it holds a manifest. `uploaded` is written between upload and
initialize: should the process die there, the next one need not upload the same bytes again. Both name their sandbox, so
a changed configuration starts from nothing.

The mark `uncertain` is set from before an initialize is asked for until its answer is recorded. A request that was cut
off may have done its work: the sandbox may hold the new manifest, or half of it, so a manifest that equals the recorded
one must be sent all the same.
"""

from __future__ import annotations

import contextlib
import logging
import os

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.durable_file import MarkerFile, StateFile, flush_folder
from syncd.core.warning import SyncWarning
from syncd.remote.target import Target
from syncd.scan.manifest import Entry, Kind, Manifest, Stamp

_log = logging.getLogger("syncd.journal")
_VERSION = 1


class _StateRow(Struct, array_like=True):
    """An entry in the journal's form: names as the bytes they are, since MessagePack's texts are UTF-8 only."""

    path: bytes
    kind: Kind
    mode: int
    mtime_s: int
    size_bytes: int
    target: bytes
    stamp: Stamp | None
    digest: bytes
    sent_digest: bytes = b""  # records of earlier versions have none


class _Initialized(Struct):
    version: int
    target: Target
    rows: list[_StateRow]
    searched: str = ""  # by which rules the contents were searched for secrets


class Uploaded(Struct, frozen=True):
    """An archive that lies in the bucket and was not initialized yet. `identity` is the archive's own."""

    version: int
    target: Target
    identity: str
    size_bytes: int
    sha256: str


class SyncState:
    """The records of one workspace. `uncertain`: the sandbox may hold another manifest than the recorded one."""

    def __init__(self, folder: str, searched: str = "") -> None:
        """`searched` is the identity of the search for secrets that contents pass, empty where none is made."""
        self._folder = folder
        self._searched = searched
        self._initialized = StateFile(folder, "initialized")
        self._uploaded = StateFile(folder, "uploaded", "at most one archive is uploaded once more")
        self._perhaps = StateFile(folder, "perhaps-there", "what came unanswered may stay in the sandbox")
        self._mark = MarkerFile(folder, "unsure")
        self._marked = False
        self.uncertain = False

    def initialized(self, target: Target) -> tuple[Manifest | None, list[SyncWarning]]:
        """The last manifest that this sandbox was known to hold, if there is one; and whether it is `uncertain`.

        Contents that were not searched by today's rules come without their stamps, so that they are looked at again.
        """
        with contextlib.suppress(OSError):
            flush_folder(self._folder)  # what a killed process did last must not be undone by a power cut later on
        self.uncertain = self._marked = self._mark.exists
        record, warning = self._initialized.read_record(_Initialized)
        if record is not None and record.version != _VERSION:
            record, warning = None, self._initialized.set_aside()
        if warning is not None:
            _log.warning("%s", warning)  # by the time that the status would show it, it may be mended
        if record is None or not record.target.same_sandbox(target):
            return None, [warning] if warning else []
        manifest = {os.fsdecode(row.path): _entry(row) for row in record.rows}
        if self._searched not in ("", record.searched):
            manifest = {path: replace(entry, stamp=None) for path, entry in manifest.items()}
        return manifest, []

    def uploaded(self, target: Target) -> Uploaded | None:
        """The archive that only lacks its initialize, if it went the same way to the same sandbox."""
        record = self._uploaded.load_record(Uploaded, _log)
        return record if record and record.version == _VERSION and record.target == target else None

    def record_uploaded(self, target: Target, identity: str, size_bytes: int, sha256: str) -> None:
        """Note that the archive is in the bucket. Raises `OSError`."""
        record = Uploaded(_VERSION, target, identity, size_bytes, sha256)
        self._uploaded.write_record(record)

    def mark_uncertain(self) -> None:
        """From now on the sandbox may hold something else than what is recorded.

        Noted for good once this returns; where there is no room for the note, what was recorded goes. Raises `OSError`
        where neither is possible: the next process would believe what is no longer true.
        """
        self.uncertain = True
        if not self._marked:
            try:
                self._mark.create()
            except OSError:
                self._initialized.remove()
            self._marked = True

    def possibly_applied(self, target: Target) -> Manifest:
        """What may be in this sandbox beside the last manifest that it was known to hold."""
        record = self._perhaps.load_record(_Initialized, _log)
        if record is None or record.version != _VERSION or not record.target.same_sandbox(target):
            return {}
        return {os.fsdecode(row.path): _entry(row) for row in record.rows}

    def record_possibly_applied(self, target: Target, entries: Manifest) -> None:
        """Note that an initialize with these is about to be asked for. Raises `OSError`."""
        self._perhaps.write_record(self._record(target, entries))

    def record_initialized(self, target: Target, manifest: Manifest) -> None:
        """Note that the sandbox holds the manifest. Raises `OSError`; this process is sure of it all the same."""
        self.uncertain = self._marked = False
        self._initialized.write_record(self._record(target, manifest))
        # Left behind, each of these costs the next process a request that it could have spared.
        for forget in (self._mark.remove, self._uploaded.remove, self._perhaps.remove):
            with contextlib.suppress(OSError):
                forget()

    def _record(self, target: Target, manifest: Manifest) -> _Initialized:
        rows = [
            _StateRow(os.fsencode(p), e.kind, e.mode, e.mtime_s, e.size_bytes, os.fsencode(e.target), *_known(e))
            for p, e in manifest.items()
        ]
        return _Initialized(_VERSION, target, rows, self._searched)

    def forget_upload(self) -> None:
        """The archive in the bucket, if any, is not the one it was. Raises `OSError` where that cannot be noted."""
        self._uploaded.remove()


def _known(entry: Entry) -> tuple[Stamp | None, bytes, bytes]:
    # A stamp that a later write may have left as it was is not for a process that heard nothing of that write.
    return entry.stamp if entry.written_back else None, entry.digest, entry.sent_digest


def _entry(row: _StateRow) -> Entry:
    size_bytes, target, stamp = row.size_bytes, os.fsdecode(row.target), row.stamp
    known = stamp, row.digest, row.sent_digest, stamp is not None
    return Entry(row.kind, row.mode, row.mtime_s, size_bytes, target, *known)
