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
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from syncd.core.durable_file import MarkerFile, StateFile, Versioned, flush_folder
from syncd.core.warning import SyncWarning
from syncd.model.manifest import Manifest
from syncd.remote.target import Target
from syncd.sync.base_record import Base, BaseRecord, ManifestsRecord, manifests_of, manifests_record


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
        self._initialized = BaseRecord(folder)
        self._read: Base | None = None  # by `recorded_target`, for the base that is asked for next
        cost = "at most one archive is uploaded once more"
        self._uploaded = StateFile(folder, "uploaded", Uploaded, cost)
        cost = "what came unanswered may stay in the sandbox"
        self._possibly_applied = StateFile(folder, "perhaps-there", ManifestsRecord, cost)
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
        base = self._recorded()
        self._read = None
        if base is None or not base.target.same_sandbox(target):
            return None, self._lost
        manifest = base.manifest
        if self._searched not in ("", base.searched):
            manifest = Manifest({path: replace(entry, stamp=None) for path, entry in manifest.items()})
        return manifest, []

    def uploaded(self, target: Target) -> Uploaded | None:
        """The archive that only lacks its initialize, if it is in the bucket of this sandbox and region."""
        record = self._uploaded.load()
        return record if record is not None and record.target == target else None

    def record_uploaded(self, target: Target, identity: str, size_bytes: int, sha256: str) -> None:
        """Record that the archive is in the bucket; durable as of the next `mark_uncertain`. Raises `OSError`."""
        self._uploaded.replace(Uploaded(target=target, identity=identity, size_bytes=size_bytes, sha256=sha256))

    def mark_uncertain(self) -> None:
        """Mark that from now on the sandbox may hold something else than what is recorded.

        The mark is durable when this returns, and so is what was recorded as uploaded and as possibly applied: they
        share one flush of the folder. If there is no room for the mark, the record is removed instead. Raises `OSError`
        if neither is possible: the next process would trust a record that is no longer true.
        """
        self.uncertain = True
        if self._marked:
            with contextlib.suppress(OSError):  # costs what the loss of those two costs
                flush_folder(self._folder)
            return
        try:
            self._mark.create()
        except OSError:
            self._initialized.remove()
        self._marked = True

    def possibly_applied(self, target: Target) -> tuple[Manifest, ...]:
        """The entries that may be in this sandbox besides the last manifest that it was known to hold.

        One manifest for each of several unanswered initializes.
        """
        record = self._possibly_applied.load()
        if record is None or not record.target.same_sandbox(target):
            return ()
        try:
            return tuple(manifests_of(record))
        except msgspec.MsgspecError:
            self._possibly_applied.set_aside("was damaged")
            return ()

    def record_possibly_applied(self, target: Target, manifests: Iterable[Manifest]) -> None:
        """Record that an initialize with the last of these is about to be requested. Raises `OSError`.

        It is durable as of the next `mark_uncertain`.
        """
        self._possibly_applied.replace(manifests_record(target, manifests, self._searched))

    def recorded_target(self) -> Target | None:
        """The sandbox of the last manifest that is recorded."""
        base = self._recorded()
        return base.target if base is not None else None

    def _recorded(self) -> Base | None:
        """The base; read once more only after it was used."""
        if self._read is None:
            self._read, warning = self._initialized.load()
            if warning is not None:
                self._lost = [warning]
        return self._read

    def record_initialized(self, target: Target, manifest: Manifest) -> None:
        """Record that the sandbox holds the manifest. Raises `OSError`; this process is certain of it all the same."""
        self.uncertain = self._marked = False
        self._read = None
        self._initialized.save(Base(target, manifest, self._searched))
        self._end_request()

    def _end_request(self) -> None:
        """Remove what was recorded for a request that is answered by now.

        Each of these that stays, or that a power cut brings back, costs the next process an unnecessary sync; and
        `uploaded` must not come back once another archive is in the bucket.
        """
        removed = False
        for forget in (self._mark.remove, self._uploaded.unlink, self._possibly_applied.unlink):
            with contextlib.suppress(OSError):
                removed |= forget()
        if removed:
            with contextlib.suppress(OSError):
                flush_folder(self._folder)

    @property
    def base_identity(self) -> str:
        """The identity of the recorded base: another one has another."""
        return self._initialized.identity

    def record_base(self, target: Target, manifest: Manifest) -> None:
        """Record a base that was changed without a sync; what is uncertain stays uncertain. Raises `OSError`."""
        self._read = None
        self._initialized.save(Base(target, manifest, self._searched))

    def forget_upload(self) -> None:
        """Record that the archive in the bucket, if any, is no longer the uploaded one. Raises `OSError`."""
        self._uploaded.remove()
