"""The values that tell of one sync: the reason for it, what leaves this machine, and what became of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import Enum

from msgspec import Struct

from syncd.model.entry import Entry
from syncd.model.manifest import Difference, Manifest, entry_changes
from syncd.sync.arrived_changes import ArrivedChanges
from syncd.sync.status_document import LastSync


class SyncReason(Enum):
    """A reason for a sync."""

    ORDER = "asked for"
    CHANGE = "changes"
    RESCAN = "a periodic look"
    POLL = "a poll"
    RETRY = "another try after a failure"


class SentArchive(Struct, frozen=True, eq=False):
    """The `entries` of an archive, as they are in it, and the paths that are to be `removed` in the sandbox with it.

    `base` is empty if it is not known what the sandbox holds. `identity` is that of the archive's bytes, empty if they
    cannot be told from others.
    """

    identity: str
    entries: Manifest
    base: Manifest
    removed: Collection[str]
    is_whole: bool

    def changes(self) -> Iterator[tuple[str, Entry | None, Entry]]:
        """Yield the entries with their paths and those before them; of a whole archive only those that are others."""
        if self.is_whole:
            return entry_changes(self.base, self.entries)
        return ((path, self.base.get(path), entry) for path, entry in self.entries.items())

    def repeats(self, other: SentArchive) -> bool:
        """True if both bring the same bytes, and the same removals."""
        return self.identity == other.identity != "" and set(self.removed) == set(other.removed)


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
