"""Keeps at home what the agent made, as of the last look that followed it: one row a sandbox, and the contents.

It is the last state, not a pile of versions: what the agent wrote over or deleted since goes. Before what was kept is
all that is left of a sandbox, it becomes a saved version.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from syncd.model.entry import SeenEntry, is_savable, same
from syncd.remote.target import Target
from syncd.sandbox.sandbox_state import SandboxContent
from syncd.store.blobs import Blobs
from syncd.store.state_db import Record, StateDb, holder_of


class FollowedWork(Struct, frozen=True):
    """What is in a sandbox in the place of what was put there, by a look that began at `at_s` (seconds since 1970).

    It is ABSENT for nothing. A file that was kept has its content's file as `copy`. `pruned`, `unlisted` and `not_kept`
    are as in a look's result.
    """

    at_s: float
    there: Mapping[str, SeenEntry]
    pruned: tuple[str, ...] = ()
    unlisted: int = 0
    not_kept: str = ""

    def savable(self, content: SandboxContent) -> dict[str, SeenEntry]:
        """Return what has its content here, and is none of the versions that were put there."""
        return {
            path: entry
            for path, entry in self.there.items()
            if is_savable(entry) and not any(same(entry, version) for version in content.versions_of(path))
        }


class FollowedStore:
    """The work that was followed in one sandbox, in the database of its workspace."""

    def __init__(self, db: StateDb, target: Target) -> None:
        self._db = db
        self._blobs = Blobs(db)
        self._holder = holder_of(target.owner)
        self._record = Record(db, "followed", FollowedWork, "what the agent made is looked at once more", target.owner)

    def load(self) -> FollowedWork | None:
        """Return what was kept last, without contents that are gone; None if nothing is."""
        work = self._record.load()
        return None if work is None else replace(work, there={path: self._kept(it) for path, it in work.there.items()})

    def _kept(self, entry: SeenEntry) -> SeenEntry:
        """Return the entry with the file in which its content is kept: the state folder may have moved."""
        place = self._blobs.path(entry.digest) if entry.copy else ""
        return replace(entry, copy=place if place and os.path.lexists(place) else "")

    def drop_damaged(self) -> None:
        """Remove the contents that are not as they were found, as the disk damaged them: the next look fetches them."""
        work = self._record.load()
        for digest in {entry.digest for entry in work.there.values() if entry.copy} if work is not None else ():
            self._blobs.drop_unless_whole(digest)

    def save(self, work: FollowedWork, now_s: float) -> FollowedWork:
        """Keep this in the place of what was kept before; it survives a power cut when this returns.

        Contents are read from the entries' `copy`; the result has them where they are kept. Raises `OSError`; then what
        was kept before still is.
        """
        written: set[bytes] = set()
        try:
            for entry in work.there.values():
                if entry.copy and entry.copy != self._blobs.path(entry.digest):
                    written.add(self._blobs.add(entry.copy, entry.digest)[0])
            self._blobs.flush(written)
            self._put(work)
        except BaseException:
            self._blobs.clean_up(now_s, written)
            raise
        self._blobs.clean_up(now_s)
        return replace(work, there={path: self._kept(entry) for path, entry in work.there.items()})

    def drop(self, is_gone: Callable[[str], bool]) -> None:
        """Keep nothing of these paths any more: syncd itself overwrote or removed what was there. Raises `OSError`.

        Their contents stay until the next clean-up, as the transaction that is open may fail.
        """
        work = self._record.load()
        if work is not None and any(map(is_gone, work.there)):
            self._put(replace(work, there={path: it for path, it in work.there.items() if not is_gone(path)}))

    def remove(self) -> None:
        """Keep nothing any more; the contents stay until the next clean-up. Raises `OSError`."""
        with self._db.transaction():
            self._blobs.let_go(self._holder)
            self._record.remove()

    def _put(self, work: FollowedWork) -> None:
        with self._db.transaction():
            self._blobs.let_go(self._holder)
            self._blobs.hold(self._holder, {entry.digest for entry in work.there.values() if entry.copy})
            self._record.save(work)
