"""Records the paths whose last `apply` was a conflict, until they are decided."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping

from msgspec import Struct
from msgspec.structs import replace

from syncd.store.state_db import Record, StateDb


class _OpenConflict(Struct, frozen=True, array_like=True):
    path: bytes
    version: str
    is_decided: bool = False


class OpenConflicts:
    """The record of one sandbox. Whoever changes it has the workspace's lock. Its changes raise `OSError`."""

    def __init__(self, db: StateDb, owner: str) -> None:
        cost = "`syncd resolve` does not list conflicts whose version in the sandbox was overwritten"
        self._record = Record(db, "conflicts", list[_OpenConflict], cost, owner)

    @property
    def versions(self) -> dict[str, str]:
        """The id of the saved version that has theirs, of each path that waits."""
        return {os.fsdecode(each.path): each.version for each in self._load() if not each.is_decided}

    def note(self, found: Mapping[str, str], is_covered: Callable[[str], bool]) -> None:
        """Note what an `apply` found, with the versions' ids; of other paths that it covered none is left."""
        before = self._load()
        paths = [os.fsdecode(each.path) for each in before]
        others = [each for each, path in zip(before, paths, strict=True) if path not in found and not is_covered(path)]
        self._save(before, others + [_OpenConflict(os.fsencode(path), id_) for path, id_ in sorted(found.items())])

    def decide(self, paths: Collection[str], *, undone: bool = False) -> None:
        """Note that these paths wait no more, or again, as that was taken back."""
        before = self._load()
        names = set(map(os.fsencode, paths))
        self._save(before, [replace(each, is_decided=not undone) if each.path in names else each for each in before])

    def _save(self, before: list[_OpenConflict], after: list[_OpenConflict]) -> None:
        if after != before:
            self._record.save(after)

    def _load(self) -> list[_OpenConflict]:
        return self._record.load() or []
