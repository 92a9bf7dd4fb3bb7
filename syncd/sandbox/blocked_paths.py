"""Finds out which paths of an archive cannot be extracted in the sandbox, and remembers them while they are blocked.

It looks there for that if there is reason to suspect any.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from itertools import islice

from msgspec import Struct, field
from msgspec.structs import replace

from syncd.core.warning import SyncWarning
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest, directories_above, in_archive_order, is_within
from syncd.remote.artifacts import NotKeptHere
from syncd.remote.failure import StepFailed
from syncd.remote.target import Target
from syncd.sandbox.blocked_paths_rules import entries_within, fingerprint, links_through, warnings
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest, LookResult, Obstacle
from syncd.selection.git_repository import GIT
from syncd.store.state_db import Record, StateDb

_log = logging.getLogger("syncd.blocked_paths")
# So that the list stays a small upload. Blocked paths beyond are not found.
_MOST_CHECKED = 200_000
_PLACE_OF = {kind: LookItem((Entry(kind),), LookAction.PLACE) for kind in Kind}


class _BlockedRecord(Struct, frozen=True):
    found: list[tuple[bytes, Obstacle]] = field(default_factory=list)
    mark: bytes = b""  # of what was withheld at the last look


class BlockedPaths:
    """The blocked paths of one sandbox."""

    def __init__(self, look: Callable[[LookRequest], LookResult], db: StateDb, target: Target) -> None:
        self._look = look
        cost = "paths that are blocked in the sandbox are sent in vain once"
        self._record = Record(db, "blocked", _BlockedRecord, cost, target.owner)
        record = self._record.load() or _BlockedRecord()
        self._found = {os.fsdecode(path): obstacle for path, obstacle in record.found}
        self._mark = record.mark
        self.withheld: dict[str, Entry] = {}  # their entries in the workspace

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths, in order; all below them is withheld as well."""
        return tuple(sorted(self._found))

    @property
    def unblocked(self) -> list[str]:
        """The withheld paths that can be sent now."""
        return [path for path in self.withheld if not is_within(path, self._found)]

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warnings about what is not sent."""
        return warnings(self._found)

    @property
    def changed(self) -> bool:
        """True if a withheld path was changed here since the last look there: reason for another."""
        return bool(self.withheld) and fingerprint(self.withheld) != self._mark

    def withhold(self, manifest: Manifest) -> dict[str, Entry]:
        """Return the entries of the manifest that are known to be blocked, and withhold them from now on."""
        self.withheld = entries_within(manifest, self._found)
        # A path that was deleted here is not blocked any more.
        if not self._found.keys() <= self.withheld.keys():
            self._found = {path: obstacle for path, obstacle in self._found.items() if path in self.withheld}
            self._save()
        return self.withheld

    def with_withheld(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the withheld entries: all that the workspace has."""
        return manifest | self.withheld if self.withheld else manifest

    def forget_repositories(self) -> None:
        """Have repositories take the place of those there."""
        if self._found.get(GIT) in (Obstacle.COMMITS, Obstacle.UNKNOWN):
            del self._found[GIT]

    def recheck(self, suspects: Collection[str], manifest: Manifest, repositories: Collection[str] = ()) -> bool:
        """Find out which of `suspects`, and of the withheld paths, are blocked.

        `manifest` is what the archive holds. `repositories` are folders that are blocked by a repository with commits.
        Returns True if it holds a blocked path. Raises `Stop`.
        """
        if not suspects and not self._found and not repositories:
            return False
        found = self._blocked_of(entries_within(manifest, suspects) | self.withheld, repositories)
        if found is None:
            found = dict.fromkeys([*suspects, *repositories], Obstacle.UNKNOWN) | self._found
        return self._update(found, manifest)

    def find(self, manifest: Manifest, only: Collection[str] | None) -> bool | None:
        """Return if there are blocked paths after a failed initialize of `manifest`, or of `only` these paths of it.

        None if nobody could look. Raises `Stop`.
        """
        checked: Mapping[str, Entry] = manifest
        if only is not None:
            paths = in_archive_order({*only, *directories_above(only)})
            checked = {path: manifest[path] for path in paths if path in manifest}
        found = self._blocked_of(checked)
        return None if found is None else self._update(self._found | found, manifest)

    def forget(self) -> None:
        """Forget all blocked paths: the sandbox does not exist any more."""
        self._found, self.withheld = {}, {}
        self._save()

    def _update(self, found: dict[str, Obstacle], manifest: Manifest) -> bool:
        for path in found.keys() - self._found.keys():
            _log.warning("%s", warnings({path: found[path]})[0])
        self._found = found
        blocked = entries_within(manifest, found)
        # What the next scan withholds is no reason for another look.
        self._mark = fingerprint(self.withheld | blocked)
        self._save()
        return bool(blocked)

    def _save(self) -> None:
        """Keep them for the next process, which then withholds them from its first archive."""
        found = [(os.fsencode(path), obstacle) for path, obstacle in self._found.items()]
        with suppress(OSError):
            if found:
                self._record.save(_BlockedRecord(found, self._mark))
            else:
                self._record.remove()

    def _blocked_of(
        self, entries: Mapping[str, Entry], repositories: Collection[str] = ()
    ) -> dict[str, Obstacle] | None:
        """Return the blocked paths, each with its obstacle; None if nobody could look. Raises `Stop`."""
        # Repositories come first, since only so many obstacles are reported.
        items = {path: LookItem((), LookAction.COMMITS) for path in repositories}
        for path, entry in islice(entries.items(), _MOST_CHECKED):
            place = _PLACE_OF[entry.kind]
            items[path] = replace(place, action=LookAction.COMMITS) if path in items else place
        request = LookRequest(items, most_copied_bytes=0)
        try:
            looked = self._look(request)
        except (StepFailed, NotKeptHere) as failure:
            _log.debug("cannot find out what blocks %d paths in the sandbox: %s", len(items), failure)
            return None
        if looked.unseen:
            _log.debug("what blocks %d paths in the sandbox could not be found out in time", looked.unseen)
            return None
        known = self._found.items() if looked.kinds_only else ()
        found = {path: obstacle for path, obstacle in known if obstacle is Obstacle.READ_ONLY} | dict(looked.blocked)
        links = [path for path, obstacle in found.items() if obstacle is Obstacle.SYMLINK]
        return found | dict.fromkeys(links_through(entries, links), Obstacle.LINK_ON_ITS_WAY)
