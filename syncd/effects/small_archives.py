"""Whether a sandbox may be sent archives of what changed only, which has to prove itself there first.

That `initialize` leaves alone what is not in an archive is likely, and nowhere promised. So after the first small one
the sandbox's own (`/dump`) is held against the whole manifest; if anything is missing, whole archives go from then on.
Where it gives none, nobody knows what is missing: then a whole archive follows, and small ones are tried again later.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from enum import Enum

from msgspec import Struct

from syncd.base.clock import Clock
from syncd.base.problem import Problem
from syncd.base.text import shown_path
from syncd.effects.dump import Dump
from syncd.effects.failure import StepFailed
from syncd.effects.state_file import StateFile
from syncd.effects.verification import verify
from syncd.policy.manifest import Manifest
from syncd.policy.target import Target

_log = logging.getLogger("syncd.cycle")
# After a sandbox could not be asked. Each small archive that proves nothing costs a whole one as well.
_TRY_AGAIN_S = 900.0


class Archives(Enum):
    """What an archive holds: `sync.archive`."""

    FULL = "full"
    CHANGES = "changes"


class _Proof(Struct, frozen=True):
    target: Target
    missing: list[bytes]  # the first of them, as the bytes that it is


class SmallArchives:
    """What one sandbox makes of them."""

    def __init__(
        self,
        archives: Archives,
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
        self._file = StateFile(state_folder, "small-archives", "small archives are tried once more")
        self._proof = self._recall() if archives is Archives.CHANGES else None

    @property
    def usable(self) -> bool:
        """Whether a small one may be sent, be it the first."""
        if self._archives is not Archives.CHANGES or (self._proof and self._proof.missing):
            return False
        return self._proof is not None or self._clock.monotonic_s() >= self._not_before_s

    @property
    def problems(self) -> list[Problem]:
        """Why whole archives are sent although small ones are asked for."""
        if self._proof is None or not self._proof.missing:
            return []
        shown = shown_path(os.fsdecode(self._proof.missing[0]))
        what = f"small archives do not suit this sandbox (after one, {shown!r} was missing there): whole ones are sent"
        return [Problem("small-archives", what, 'set sync.archive = "full" to be rid of this')]

    def missing(self, manifest: Manifest) -> list[str]:
        """After a small archive: which paths of the manifest the sandbox lacks, if that is not proved. Raises `Stop`.

        All of them, if the sandbox cannot be asked.
        """
        if self._proof is not None:
            return []

        def missing(packed: Iterator[bytes]) -> list[str]:
            return verify(self._workspace, manifest, packed, self._check).missing

        try:
            found = self._dump.read(missing, lambda failure, _: _log.debug("%s", failure))
        except StepFailed as failure:
            _log.warning("whether small archives suit this sandbox cannot be seen yet: %s", failure)
            self._not_before_s = self._clock.monotonic_s() + _TRY_AGAIN_S
            return list(manifest)
        self._proof = _Proof(self._target, [os.fsencode(path) for path in found[:1]])
        with contextlib.suppress(OSError):  # then the next process proves it again
            self._file.write_record(self._proof)
        return found

    def _recall(self) -> _Proof | None:
        proof = self._file.recalled(_Proof, _log)
        return proof if proof is not None and proof.target.same_sandbox(self._target) else None
