"""Decides if a sandbox may be sent partial archives, which hold only what changed; this is verified there first.

`initialize` probably leaves alone what is not in an archive, but this is not documented. So after the first partial
archive the sandbox's own (`/dump`) is compared with the whole manifest; if a path is missing, only whole archives are
sent from then on. If there is no dump, a whole archive follows, and partial ones are tried again later. Until the
result is on disk the sync state stays uncertain, so a process that dies in between leaves nothing unverified.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from enum import Enum

from msgspec import Struct

from syncd.archive.verification import verify
from syncd.core.clock import Clock
from syncd.core.durable_file import StateFile
from syncd.core.text import shown_path
from syncd.core.warning import SyncWarning
from syncd.remote.dump import Dump
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.target import Target
from syncd.scan.manifest import Manifest, content_bytes

_log = logging.getLogger("syncd.partial_archives")
# After a failed verification. Each partial archive that is not verified costs a whole one as well.
_TRY_AGAIN_S = 900.0
# A verification reads the sandbox's whole workspace. One that takes longer than this, and than its size explains, is
# given up; the whole archive that follows makes it unnecessary.
_VERIFY_S = 60.0
_VERIFY_BYTES_PER_S = 1 << 20


class ArchiveContent(Enum):
    """The content of an archive: `sync.archive`."""

    FULL = "full"
    CHANGES = "changes"


class _Proof(Struct, frozen=True):
    target: Target
    missing: list[bytes]  # the first of them, as bytes


class PartialArchives:
    """Partial archives for one sandbox."""

    def __init__(
        self,
        archives: ArchiveContent,
        target: Target,
        dump: Dump,
        *,
        workspace: str,
        state_folder: str,
        clock: Clock,
        check: Callable[[], None],
    ) -> None:
        self._archives = archives
        self._target = target
        self._dump = dump
        self._workspace = workspace
        self._clock = clock
        self._check = check
        self._not_before_s = 0.0
        self._file = StateFile(state_folder, "small-archives", _Proof, "small archives are tried once more")
        self._proof = self._load() if archives is ArchiveContent.CHANGES else None

    @property
    def usable(self) -> bool:
        """True if a partial archive may be sent."""
        if self._archives is not ArchiveContent.CHANGES or (self._proof and self._proof.missing):
            return False
        return self._proof is not None or self._clock.monotonic_s() >= self._not_before_s

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warning that whole archives are sent although partial ones are configured."""
        if self._proof is None or not self._proof.missing:
            return []
        shown = shown_path(os.fsdecode(self._proof.missing[0]))
        what = f"this sandbox removes files that an archive does not hold ({shown!r}), so whole archives are sent"
        return [SyncWarning("small-archives", what, 'set sync.archive = "full" to remove this warning')]

    def proved(self, manifest: Manifest) -> bool:
        """True if the sandbox is known to hold the whole manifest after a partial archive.

        It is verified once; a kept result is used again. Raises `Stop`, and what ends a wait early.
        """
        if self._proof is not None:
            return not self._proof.missing
        ends_s = self._clock.monotonic_s() + _VERIFY_S + content_bytes(manifest.values()) / _VERIFY_BYTES_PER_S

        def missing(blocks: Iterator[bytes]) -> list[str]:
            return verify(self._workspace, manifest, self._until(ends_s, blocks), self._check).missing

        try:
            found = self._dump.read_once(missing)
        except StepFailed as failure:
            _log.warning("cannot verify partial archives in this sandbox yet: %s", failure)
            return False
        finally:
            self._not_before_s = self._clock.monotonic_s() + _TRY_AGAIN_S
        self._proof = _Proof(self._target, [os.fsencode(path) for path in found[:1]])
        with contextlib.suppress(OSError):  # then the next process proves it again
            self._file.save(self._proof)
        if found:
            _log.warning("after a partial archive %d paths are missing in the sandbox", len(found))
        return not found

    def _until(self, ends_s: float, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            if self._clock.monotonic_s() > ends_s:
                raise StepFailed(ApiStep.DUMP, FailureAction.RETRY, "the sandbox's archive took too long")
            yield block

    def _load(self) -> _Proof | None:
        proof = self._file.load()
        return proof if proof is not None and proof.target.same_sandbox(self._target) else None
