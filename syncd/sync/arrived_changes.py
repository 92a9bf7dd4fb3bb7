"""Decides which paths a sync added, changed or removed in the sandbox, and combines the changes of several syncs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum

from msgspec import Struct

from syncd.model.manifest import Manifest, Paths, difference


class Change(StrEnum):
    """The kinds of change of a path in the sandbox."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


class SentContent(Struct, frozen=True):
    """The base, None if it is not known, and the leftovers, which are in the sandbox beyond it."""

    base: Manifest | None = None
    leftovers: Collection[str] = ()


class ArrivedChanges(Struct, frozen=True):
    """The paths that differ in the sandbox since the last sync that arrived."""

    added: Sequence[str] = ()
    changed: Sequence[str] = ()
    removed: Sequence[str] = ()


def arrived_changes(before: SentContent, now: SentContent) -> ArrivedChanges:
    """Return the changes between two syncs; all paths are added if it is not known what was there before.

    What stays as it is in the sandbox counts in the base as it was sent last, so it is no change. What was deleted here
    and stays there is a leftover: it is removed by the sync after which it is none any more.
    """
    if now.base is None:
        return ArrivedChanges()
    if before.base is None:
        return ArrivedChanges(added=Paths(now.base.copy()))
    found = difference(before.base, now.base)
    if not before.leftovers and not now.leftovers:
        return ArrivedChanges(found.added, [*found.changed, *found.uncertain], found.removed)
    was_left = [path for path in found.added if path in before.leftovers]
    new = [path for path in found.added if path not in before.leftovers]
    gone = [path for path in before.leftovers if path not in now.leftovers]
    late = [path for path in gone if path not in before.base and path not in now.base]
    removed = [*(path for path in found.removed if path not in now.leftovers), *late]
    return ArrivedChanges(new, [*found.changed, *found.uncertain, *was_left], removed)


def combined(before: Change | None, now: Change) -> Change | None:
    """Return what two changes of a path are together; None: nothing."""
    if now is Change.REMOVED:
        return None if before is Change.ADDED else Change.REMOVED
    if before is None or before is Change.ADDED:
        return before or now
    return Change.CHANGED


class CombinedChanges:
    """The changes of several syncs as those of one. No list is made of a first sync's paths."""

    def __init__(self) -> None:
        self._all: Sequence[str] = ()  # the paths of a first sync
        self._changes: dict[str, Change | None] = {}  # since then

    def add(self, arrived: ArrivedChanges) -> None:
        """Add the changes of the next sync."""
        if isinstance(arrived.added, Paths):
            self._all, self._changes = arrived.added, {}
            return
        for change in Change:
            for path in getattr(arrived, change):
                self._changes[path] = combined(self._change_of(path), change)

    def paths(self, change: Change) -> Iterator[str]:
        """Yield the paths with this change."""
        if change is Change.ADDED:
            yield from (path for path in self._all if path not in self._changes)
        yield from (path for path, each in self._changes.items() if each is change)

    def _change_of(self, path: str) -> Change | None:
        if path in self._changes:
            return self._changes[path]
        return Change.ADDED if path in self._all else None
