"""The result of one sync, as a value."""

from __future__ import annotations

from msgspec import Struct

from syncd.model.manifest import Difference
from syncd.sync.arrived_changes import ArrivedChanges
from syncd.sync.status_document import LastSync


class Outcome(Struct, frozen=True):
    """The result of a sync.

    `sync` is None if nothing had to be sent. `follow_up` are paths that another sync must send: they changed or
    vanished while they were read, or their places in the sandbox became free. `torn` are those of them whose copy in
    the sandbox may be half old and half new. `obstructed` are held paths whose places in the sandbox are taken: they,
    and what is below them, are left out; `held` those that both sides changed, and that stay as they are there. `saved`
    counts the agent's versions that were saved, `overwritten` those of them that had to give way as both sides had
    changed; `push --force` counts none of these. `change` is the difference from the snapshot before, None if it is not
    known what the sandbox held; `arrived` are the paths that are different in the sandbox for it, None if nothing was
    sent.
    """

    sync: LastSync | None
    follow_up: tuple[str, ...] = ()
    files: int = 0
    change: Difference | None = None
    torn: tuple[str, ...] = ()
    obstructed: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    saved: int = 0
    overwritten: int = 0
    arrived: ArrivedChanges | None = None

    @property
    def word(self) -> str:
        """The outcome's name in logs and in `push --json`."""
        return "initialized" if self.sync else "unchanged"
