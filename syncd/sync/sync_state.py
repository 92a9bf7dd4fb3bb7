"""Records what must be known after a crash: the manifest that the sandbox holds, and how far a later one has come.

The *base* is recorded once a sandbox has confirmed that it holds a manifest. An archive that is *uploaded* is recorded
between upload and initialize: if the process dies there, the next one need not upload the same bytes again.

The state is *uncertain* from before an initialize is requested until its answer is recorded. A request whose answer is
lost may have been carried out: the sandbox may hold the new manifest, or half of it, so that even a manifest equal to
the base must be sent again. What may be there is recorded with the mark, in one transaction.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.warning import SyncWarning
from syncd.model.manifest import Manifest
from syncd.remote.target import Target
from syncd.store.manifests import ManifestRows
from syncd.store.state_db import Record, StateDb
from syncd.sync.taken import TakenPath, with_taken

_BASE, _FIRST_UNANSWERED = 0, 1
_SENT_ANEW = "everything is compared and sent anew once"


class Uploaded(Struct, frozen=True):
    """An archive in the bucket that was not initialized yet. `identity` is the archive's own."""

    target: Target
    identity: str
    size_bytes: int
    sha256: str


class _Base(Struct, frozen=True):
    """The facts recorded beside the base's manifest. `identity` is another one for each manifest.

    `searched` is the identity of the search for secrets that its contents passed.
    """

    target: Target
    searched: str
    identity: str


class SyncState:
    """The state of one workspace in its sandbox. `uncertain`: it may hold another manifest than the base."""

    def __init__(self, db: StateDb, searched: str = "") -> None:
        """`searched` is the identity of the search for secrets that contents pass, empty if none is made."""
        self.db = db
        self._searched = searched
        # The manifest of this base is in the rows, as far as this process knows.
        self._known: tuple[str, Manifest] | None = None
        self._marked = False
        self.uncertain = False
        self._last = Record(db, "last", Target, "the sandbox of the last sync is not known")

    def initialized(self, target: Target) -> tuple[Manifest | None, list[SyncWarning]]:
        """The last manifest that this sandbox was known to hold, if any; it sets `uncertain` too.

        Entries whose contents were not searched by today's rules come without their stamps: they are read again.
        """
        self.uncertain = self._marked = self._mark(target).load() is not None
        self._known = None
        base = self._base(target).load()
        if base is None:
            return None, [self.db.warning] if self.db.warning else []
        try:
            manifest, damaged = self._manifests(target).load(_BASE)
        except OSError as failure:
            return None, [_damage(f"cannot be read ({failure.strerror})")]
        self._known = base.identity, manifest.copy()
        if self._searched not in ("", base.searched):
            manifest = Manifest({path: replace(entry, stamp=None) for path, entry in manifest.items()})
        if damaged:
            self._known = None
            return manifest, [_damage(f"was damaged in {len(damaged)} places")]
        return manifest, []

    def recorded_target(self) -> Target | None:
        """The sandbox of the last base that was recorded."""
        return self._last.load()

    def was_changed(self, target: Target) -> bool:
        """True if another process changed the base since this one read or recorded it."""
        return self._known is not None and self._identity_of(target) not in ("", self._known[0])

    @property
    def base_identity(self) -> str:
        """The identity of the base that this process knows, empty if it knows none."""
        return self._known[0] if self._known else ""

    def _identity_of(self, target: Target) -> str:
        base = self._base(target).load()
        return base.identity if base is not None else ""

    # -- an archive on its way

    def uploaded(self, target: Target) -> Uploaded | None:
        """The archive that only lacks its initialize, if it is in the bucket of this sandbox and region."""
        record = self._uploaded(target).load()
        return record if record is not None and record.target == target else None

    def record_uploaded(self, uploaded: Uploaded) -> None:
        """Record that the archive is in the bucket. Raises `OSError`."""
        self._uploaded(uploaded.target).save(uploaded)

    def forget_upload(self, target: Target) -> None:
        """Record that the archive in the bucket, if any, is no longer the uploaded one. Raises `OSError`."""
        self._uploaded(target).remove()

    def unanswered(self, target: Target) -> tuple[Manifest, ...]:
        """The entries that may be in this sandbox besides the base: a manifest for each unanswered initialize."""
        found: list[Manifest] = []
        rows = self._manifests(target)
        with contextlib.suppress(OSError):
            while manifest := rows.load(_FIRST_UNANSWERED + len(found))[0]:
                found.append(manifest)
        return tuple(found)

    def mark_uncertain(self, target: Target, unanswered: Sequence[Manifest] | None = None) -> None:
        """Record that from now on the sandbox may hold something else than the base: one of `unanswered`, if given.

        It is durable when this returns. Raises `OSError`; then nothing must be requested.
        """
        self.uncertain = True
        if self._marked and unanswered is None:
            return
        with self.db.transaction():
            self._mark(target).save(True)
            if unanswered is not None:
                rows = self._manifests(target)
                rows.forget(_FIRST_UNANSWERED)
                for number, manifest in enumerate(unanswered):
                    rows.save(_FIRST_UNANSWERED + number, manifest, Manifest())
        self._marked = True

    # -- the base

    def record_initialized(self, target: Target, manifest: Manifest) -> None:
        """Record that the sandbox holds the manifest, and that no request is unanswered.

        Raises `OSError`; this process is certain of it all the same.
        """
        self.uncertain = self._marked = False
        with self._recording(target, manifest, self._searched):
            self._mark(target).remove()
            self._uploaded(target).remove()
            self._manifests(target).forget(_FIRST_UNANSWERED)

    def record_base(self, target: Target, manifest: Manifest) -> None:
        """Record a base that was changed without a sync; what is uncertain stays uncertain. Raises `OSError`."""
        recorded = self._base(target).load()
        with self._recording(target, manifest, self._searched if recorded is None else recorded.searched):
            pass

    def record_taken(self, target: Target, taken: Sequence[TakenPath]) -> None:
        """Have what was brought home count as sent, or what was taken back not any more. Raises `OSError`.

        A path counts only while the base is as `taken` says; a sync that came in between knows better.
        """
        base, _ = self.initialized(target)
        if base is not None:
            self.record_base(target, with_taken(base, taken))

    @contextlib.contextmanager
    def _recording(self, target: Target, manifest: Manifest, searched: str) -> Iterator[None]:
        """Record the base, and in one transaction what is changed within. Raises `OSError`."""
        known, self._known = self._known, None
        base = _Base(target, searched, secrets.token_hex(8))
        with self.db.transaction():
            recorded = self._base(target).load()
            is_known = known is not None and recorded is not None and recorded.identity == known[0]
            self._manifests(target).save(_BASE, manifest, known[1] if known and is_known else None)
            self._base(target).save(base)
            self._last.save(target)
            yield
        self._known = base.identity, manifest.copy()

    def _manifests(self, target: Target) -> ManifestRows:
        return ManifestRows(self.db, target.owner)

    def _base(self, target: Target) -> Record[_Base]:
        return Record(self.db, "base", _Base, _SENT_ANEW, target.owner)

    def _mark(self, target: Target) -> Record[bool]:
        return Record(self.db, "uncertain", bool, _SENT_ANEW, target.owner)

    def _uploaded(self, target: Target) -> Record[Uploaded]:
        return Record(self.db, "uploaded", Uploaded, "at most one archive is uploaded once more", target.owner)


def _damage(what: str) -> SyncWarning:
    return SyncWarning("state", f"the record of what was sent {what}", f"nothing to do, as {_SENT_ANEW}")
