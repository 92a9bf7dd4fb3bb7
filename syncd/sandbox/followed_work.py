"""Keeps at home what the agent made, as of the last look that followed it: one row a sandbox, and the contents.

It is the last state, not a pile of versions: what the agent wrote over or deleted since goes. Before what was kept is
all that is left of a sandbox, it becomes a saved version.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from syncd.model.entry import ABSENT, ALL_BITS, Entry, SeenEntry, is_savable, same
from syncd.remote.target import Target
from syncd.sandbox.look_request import LookResult
from syncd.sandbox.sandbox_state import SandboxContent
from syncd.store.blobs import Blobs
from syncd.store.state_db import Record, StateDb, holder_of


class FollowedWork(Struct, frozen=True):
    """The difference between a sandbox and what was put there, by a look that began at `at_s` (seconds since 1970).

    `base` is what had been put there by then as each path, without those that were new, and `there` what it was
    instead, ABSENT for nothing. A file that was kept has its content's file as `copy`. `pruned`, `unlisted` and
    `not_kept` are as in a look's result.
    """

    at_s: float
    base: Mapping[str, Entry]
    there: Mapping[str, SeenEntry]
    pruned: tuple[str, ...] = ()
    unlisted: int = 0
    not_kept: str = ""

    def holding(self, content: SandboxContent) -> FollowedWork:
        """Return what still holds, where the sandbox was sent other things since, or some were brought home.

        Of a path whose base is another one now, it is known what is there: the base.
        """
        now: Mapping[str, Entry] = content.base or {}
        there = {
            path: entry
            for path, entry in self.there.items()
            if same(now.get(path, ABSENT), self.base.get(path, ABSENT), ALL_BITS)
            or now.get(path) == self.base.get(path)
        }
        return self.only(there)

    def still_here(self) -> FollowedWork:
        """Return the same without the paths whose kept contents are gone, which are as if nobody had looked at them."""
        return self.only({path: it for path, it in self.there.items() if not it.copy or os.path.lexists(it.copy)})

    def only(self, there: Mapping[str, SeenEntry]) -> FollowedWork:
        """Return the same of these paths alone."""
        return replace(self, there=there, base={path: entry for path, entry in self.base.items() if path in there})

    def savable(self, content: SandboxContent) -> dict[str, SeenEntry]:
        """Return what still holds and has its content here."""
        there = self.holding(content).still_here().there
        return {path: entry for path, entry in there.items() if is_savable(entry)}

    def result(self, content: SandboxContent) -> LookResult:
        """Return the same as the result of a look at everything."""
        ours = {path for path in self.there if path in self.base or content.versions_of(path)}
        return LookResult(
            differing={path: entry for path, entry in self.there.items() if path in ours},
            new={path: entry for path, entry in self.there.items() if path not in ours},
            pruned=self.pruned,
            unlisted=self.unlisted,
            not_kept=self.not_kept,
        )


class FollowedStore:
    """The work that was followed in one sandbox, in the database of its workspace."""

    def __init__(self, db: StateDb, target: Target) -> None:
        self._db = db
        self._blobs = Blobs(db)
        self._holder = holder_of(target.owner)
        self._record = Record(db, "followed", FollowedWork, "what the agent made is looked at once more", target.owner)

    def load(self) -> FollowedWork | None:
        """Return what was kept last, None if nothing is."""
        work = self._record.load()
        return None if work is None else replace(work, there=self._with_copies(work.there))

    def _with_copies(self, there: Mapping[str, SeenEntry]) -> dict[str, SeenEntry]:
        """Return the same with the files in which contents are kept: the state folder may have moved."""
        return {
            path: replace(entry, copy=self._blobs.path(entry.digest)) if entry.copy else entry
            for path, entry in there.items()
        }

    def checked(self, work: FollowedWork) -> FollowedWork:
        """Return this work of the store with the contents that are as they were found.

        One that is not, as the disk damaged it, is removed, so that the next look fetches it again.
        """
        there = {
            path: each if not each.copy or self._blobs.drop_unless_whole(each.digest) else replace(each, copy="")
            for path, each in work.there.items()
        }
        return replace(work, there=there)

    def save(self, work: FollowedWork, now_s: float) -> FollowedWork:
        """Keep this in the place of what was kept before; it survives a power cut when this returns.

        Contents are read from the entries' `copy`; the result has them where they are kept. Raises `OSError`; then what
        was kept before still is.
        """
        kept = {path: entry for path, entry in work.there.items() if entry.copy}
        written: set[bytes] = set()
        try:
            for entry in kept.values():
                if entry.copy != self._blobs.path(entry.digest):
                    written.add(self._blobs.add(entry.copy, entry.digest)[0])
            self._blobs.flush(written)
            with self._db.transaction():
                self._blobs.let_go(self._holder)
                self._blobs.hold(self._holder, {entry.digest for entry in kept.values()})
                self._record.save(work)
        except BaseException:
            self._clean_up(now_s, written)
            raise
        self._clean_up(now_s)
        return replace(work, there=self._with_copies(work.there))

    def drop(self, is_gone: Callable[[str], bool]) -> None:
        """Keep nothing of these paths any more: syncd itself overwrote or removed what was there. Raises `OSError`.

        Their contents stay until the next clean-up, as the transaction that is open may fail.
        """
        work = self.load()
        left = {} if work is None else {path: entry for path, entry in work.there.items() if not is_gone(path)}
        if work is None or len(left) == len(work.there):
            return
        with self._db.transaction():
            self._blobs.let_go(self._holder)
            self._blobs.hold(self._holder, {entry.digest for entry in left.values() if entry.copy})
            self._record.save(work.only(left))

    def remove(self, now_s: float) -> None:
        """Keep nothing any more. Raises `OSError`."""
        with self._db.transaction():
            self._blobs.let_go(self._holder)
            self._record.remove()
        self._clean_up(now_s)

    def _clean_up(self, now_s: float, unwanted: Collection[bytes] = ()) -> None:
        with suppress(OSError):  # the next one does it
            self._blobs.clean_up(now_s, unwanted)
