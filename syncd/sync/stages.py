"""The values that one stage of a sync hands to the next."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from syncd.archive.packer import Packed
from syncd.archive.snapshotter import ScanResult, SyncMode
from syncd.model.manifest import Manifest
from syncd.sync.delivery import SyncObserver
from syncd.sync.sandbox_services import SandboxServices


class RequestedSync(Struct, frozen=True):
    """One sync that was asked for: `changed` are the only directories to scan, None for all.

    `unsaved` are paths that `push --force` leaves as they are in the sandbox, as they could not be saved. `attempt`
    counts how often it was begun again before, as something was found there, `withheld` how often as that stays there.
    """

    services: SandboxServices
    mode: SyncMode
    observer: SyncObserver
    changed: Collection[str] | None
    unsaved: frozenset[str] = frozenset()
    attempt: int = 0
    withheld: int = 0


class ArchivedSnapshot(Struct, frozen=True):
    """An archive to deliver: `only` are the paths that a partial one holds, None for a whole one.

    `stays` are paths that it leaves out since they stay as they are in the sandbox.
    """

    scanned: ScanResult
    packed: Packed
    only: Collection[str] | None
    stays: frozenset[str]


class DeliveredArchive(Struct, frozen=True):
    """An archive that was initialized, and the manifest that the sandbox holds since. `is_partial`: it held changes.

    `left_out` are paths that were there before it and that it did not hold.
    """

    packed: Packed
    manifest: Manifest
    sha256: str
    is_partial: bool
    left_out: Collection[str] = ()
