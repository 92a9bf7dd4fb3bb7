"""Takes back what a write counts as sent, and saves what only the workspace has of the agent's, before that changes.

A process that dies in between leaves what the agent changed for the next sync to find; one that recorded it afterwards
would leave that to be overwritten as ours.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from msgspec import Struct

from syncd.archive.base_store import LARGEST_BYTES
from syncd.core.clock import Clock
from syncd.merge.open_conflicts import OpenConflicts
from syncd.merge.path_changes import digest_at
from syncd.model.entry import Kind, SeenEntry, arrived_digest, with_copy
from syncd.model.manifest import Manifest
from syncd.remote.target import Target
from syncd.sandbox.sandbox_state import SandboxState, TakenPath, is_as
from syncd.sandbox.saved_versions import SavedVersions, SentEntry, Why
from syncd.store.blobs import Blobs
from syncd.store.state_db import StateDb


class Undo(Struct, frozen=True):
    """The rows of a write that are taken back, of the sandbox `name`, whose id was `sandbox_id` then.

    `target` is the sandbox of that name now, None if none is known.
    """

    db: StateDb
    clock: Clock
    workspace: str
    name: str
    sandbox_id: str
    target: Target | None
    taken: Sequence[TakenPath]

    def save(self) -> None:
        """Save the agent's versions that the sandbox may not have any more. Raises `OSError`.

        Their bytes are those that the journal keeps, or still here.
        """
        saved, blobs = SavedVersions(self.db, self.clock, self.name), Blobs(self.db)
        versions: dict[str, SeenEntry] = {}
        bases: dict[str, SentEntry] = {}
        for path, before, after in ((each.path, each.before, each.after) for each in self._only_here()):
            if after is None or after.is_directory or saved.holder_of(path, after):
                continue
            copy = ""
            if after.kind is Kind.FILE:
                is_kept = blobs.is_whole(after.digest)
                copy = blobs.path(after.digest) if is_kept else os.path.join(self.workspace, path)
                if not is_kept and digest_at(copy) != after.digest:
                    continue
            versions[path] = with_copy(after, copy)
            if before is not None:
                is_small = before.size_bytes <= LARGEST_BYTES
                bases[path] = before, blobs.content(arrived_digest(before)) if is_small else None
        if versions:
            saved.save(Why.CONFLICT, self.sandbox_id, versions, bases)

    def record(self) -> None:
        """Record that the rows count as sent no more, in the transaction that is open. Raises `OSError`.

        Of a write that was killed a sync may have recorded that both sides have the same.
        """
        state = self._state
        if self.target is None or state is None:
            return
        known = state.base or Manifest()
        # What was asked for against the rules is the agent's own, also if it was sent since.
        back = [
            TakenPath(each.path, each.after, None if each.is_left_out else each.before)
            for each in self.taken
            if each.is_left_out or each.before != each.after
        ]
        again = [each for each in back if is_as(known, each.path, each.before)]
        if again:
            state.record_taken(again, differing=[each.path for each in again])
        OpenConflicts(self.db, self.target.owner).decide([each.path for each in self.taken], undone=True)

    @property
    def _state(self) -> SandboxState | None:
        """The known state of the sandbox; None if another one is used now, which got from here what it has."""
        is_it = self.target is not None and self.target.sandbox_id == self.sandbox_id
        return SandboxState(self.db, self.target) if self.target is not None and is_it and self.taken else None

    def _only_here(self) -> Sequence[TakenPath]:
        """Return the rows of which the sandbox may have the agent's version no more."""
        state = self._state
        if state is None or state.base is None:
            return self.taken
        base, unanswered = state.base, state.unanswered

        def is_there(each: TakenPath) -> bool:
            # It counts as arrived, or it was not sent and is the agent's still.
            return is_as(base, each.path, each.after) or is_as(base, each.path, each.before)

        return [
            each
            for each in self.taken
            # A sync may have removed what was asked for against the rules.
            if each.is_left_out or not is_there(each) or any(each.path in sent for sent in unanswered)
        ]
