"""An archive that leaves this machine, and what the sandbox held before it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from msgspec import Struct

from syncd.model.entry import Entry
from syncd.model.manifest import Manifest, entry_changes


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
