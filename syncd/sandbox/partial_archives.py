"""Whether a sandbox may be sent archives of what changed only, which has to prove itself there first.

That `initialize` leaves alone what is not in an archive is likely, and nowhere promised. So after the first small one
the sandbox's own (`/dump`) is held against the whole manifest; if anything is missing, whole archives go from then on.
Where it gives none, nobody knows what is missing: then a whole archive follows, and small ones are tried again later.
Until the proof is on disk the journal's mark stands, so a process that dies in between leaves a sandbox that is unsure.
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
from syncd.remote.failure import StepFailed
from syncd.remote.failure_action import ApiStep, FailureAction
from syncd.remote.target import Target
from syncd.scan.manifest import Manifest, content_bytes

_log = logging.getLogger("syncd.cycle")
# After a sandbox could not be asked, or was not asked to the end. Each small archive that proves nothing costs a whole
# one as well.
_TRY_AGAIN_S = 900.0
# A proof reads all that is in the sandbox. One that takes longer than this, and than its size explains, is given up:
# the whole archive that follows then makes the same sure.
_PROOF_S = 60.0
_PROOF_BYTES_PER_S = 1 << 20


class ArchiveContent(Enum):
    """What an archive holds: `sync.archive`."""

    FULL = "full"
    CHANGES = "changes"


class _Proof(Struct, frozen=True):
    target: Target
    missing: list[bytes]  # the first of them, as the bytes that it is


class PartialArchives:
    """What one sandbox makes of them."""

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
        self._proof = self._recall() if archives is ArchiveContent.CHANGES else None

    @property
    def usable(self) -> bool:
        """Whether a small one may be sent, be it the first."""
        if self._archives is not ArchiveContent.CHANGES or (self._proof and self._proof.missing):
            return False
        return self._proof is not None or self._clock.monotonic_s() >= self._not_before_s

    @property
    def warnings(self) -> list[SyncWarning]:
        """Why whole archives are sent although small ones are asked for."""
        if self._proof is None or not self._proof.missing:
            return []
        shown = shown_path(os.fsdecode(self._proof.missing[0]))
        what = f"small archives do not suit this sandbox (after one, {shown!r} was missing there): whole ones are sent"
        return [SyncWarning("small-archives", what, 'set sync.archive = "full" to be rid of this')]

    def proved(self, manifest: Manifest) -> bool:
        """Whether, after a small archive, the sandbox is known to hold the whole manifest.

        It is asked once, and not at all where it has proved itself before. Raises `Stop`, and what ends a wait early.
        """
        if self._proof is not None:
            return not self._proof.missing
        ends_s = self._clock.monotonic_s() + _PROOF_S + content_bytes(manifest.values()) / _PROOF_BYTES_PER_S

        def missing(packed: Iterator[bytes]) -> list[str]:
            return verify(self._workspace, manifest, self._until(ends_s, packed), self._check).missing

        try:
            found = self._dump.read_once(missing)
        except StepFailed as failure:
            _log.warning("whether small archives suit this sandbox cannot be seen yet: %s", failure)
            return False
        finally:
            self._not_before_s = self._clock.monotonic_s() + _TRY_AGAIN_S
        self._proof = _Proof(self._target, [os.fsencode(path) for path in found[:1]])
        with contextlib.suppress(OSError):  # then the next process proves it again
            self._file.save(self._proof)
        if found:
            _log.warning("after a small archive %d paths are missing in the sandbox", len(found))
        return not found

    def _until(self, ends_s: float, packed: Iterator[bytes]) -> Iterator[bytes]:
        for piece in packed:
            if self._clock.monotonic_s() > ends_s:
                raise StepFailed(ApiStep.DUMP, FailureAction.RETRY, "the sandbox's archive took too long")
            yield piece

    def _recall(self) -> _Proof | None:
        proof = self._file.load()
        return proof if proof is not None and proof.target.same_sandbox(self._target) else None
