"""Removes deleted files in the sandbox before a snapshot, as `sandbox.deletions` says, and remembers the leftovers."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.choices import Deletions
from syncd.core.text import shown_path
from syncd.core.warning import SyncWarning
from syncd.model.entry import Entry, Kind
from syncd.model.entry_row import StateRow, entry_of, row_of
from syncd.model.manifest import Manifest, is_within
from syncd.remote.api import Api
from syncd.remote.target import Target
from syncd.sandbox.blocked_paths_rules import blocked_by, kinds_changed, obstructing
from syncd.sandbox.leftovers import (
    NO_LEFTOVERS,
    Leftovers,
    RemovalOutcomes,
    Versions,
    leftovers_after,
    leftovers_without,
    paths_to_delete,
)
from syncd.sandbox.look import Looker
from syncd.sandbox.look_request import LookResult
from syncd.store.state_db import Record, StateDb

_log = logging.getLogger("syncd.deletions")


class _LeftoversRecord(Struct, frozen=True):
    rows: list[StateRow]
    changed: list[bytes]
    unnamed: int
    files: int
    secret: list[bytes]


class LeftoversStore:
    """Keeps the leftovers of one sandbox."""

    def __init__(self, db: StateDb, target: Target) -> None:
        cost = "files that were deleted here may stay in the sandbox uncounted"
        self._record = Record(db, "leftovers", _LeftoversRecord, cost, target.owner)

    def load(self) -> Leftovers:
        """Return what is kept, nothing without a valid record of this sandbox."""
        record = self._record.load()
        if record is None:
            return NO_LEFTOVERS
        entries: Versions = {}
        for row in record.rows:
            entries.setdefault(os.fsdecode(row.path), []).append(entry_of(row))
        changed = frozenset(map(os.fsdecode, record.changed))
        secret = frozenset(map(os.fsdecode, record.secret))
        return Leftovers(entries, changed, record.unnamed, record.files, secret)

    def save(self, leftovers: Leftovers) -> None:
        """Keep the leftovers. Raises `OSError`."""
        if leftovers == NO_LEFTOVERS:
            self._record.remove()
            return
        rows = [row_of(path, entry) for path, versions in leftovers.entries.items() for entry in versions]
        changed = sorted(map(os.fsencode, leftovers.changed))
        secret = sorted(map(os.fsencode, leftovers.secret))
        self._record.save(_LeftoversRecord(rows, changed, leftovers.unnamed, leftovers.files, secret))


class DeletionSync:
    """The deletions in one sandbox before each initialize, and the leftovers after it."""

    def __init__(
        self,
        deletions: Deletions,
        api: Api,
        looker: Looker,
        file: LeftoversStore,
        check: Callable[[], None] = lambda: None,
        *,
        is_excluded: Callable[[str, bool], bool] = lambda _path, _is_dir: False,
        blocked: Collection[str] = (),
    ) -> None:
        """`is_excluded` is True for a path, and whether it is a directory, that the rules exclude: it was not deleted.

        `blocked` are paths whose place in the sandbox was taken when the last process ended.
        """
        self._deletions = deletions
        self._api = api
        self._looker = looker
        self._file = file
        self._check = check
        self._is_excluded = is_excluded
        self._failed: dict[str, SyncWarning] = {}
        self._outcomes = RemovalOutcomes()
        self._blocked = set(blocked)
        self._was_reset = False
        self._leftovers = file.load()

    def recall(self) -> None:
        """Read the leftovers that are recorded, as another process may have changed them."""
        self._leftovers = self._file.load()

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warnings about what stays in the sandbox although it was deleted here."""
        if not self.removes:
            return []  # then it stays as configured
        kept = [
            SyncWarning(
                f"kept:{path}",
                f"{shown_path(path)!r} was deleted here and changed in the sandbox, where it stays",
                "`syncd diff` shows it; `syncd push --force` saves it, and removes it there",
            )
            for path in sorted(self._leftovers.changed - self._blocked)  # others warn of these
        ]
        return [*kept, *self._failed.values()]

    def has_leftover(self, path: str) -> bool:
        """True if an uploaded version of the path may be there that no snapshot holds any more."""
        return path in self._leftovers.entries

    @property
    def leftovers(self) -> Versions:
        """The uploaded versions that may be there beyond the last manifest."""
        return self._leftovers.entries

    @property
    def secret_leftovers(self) -> frozenset[str]:
        """The paths that may be there although a secret was found in them here."""
        return self._leftovers.secret

    @property
    def removes(self) -> bool:
        """True if files are removed only because they were deleted here."""
        return self._deletions is not Deletions.KEEP

    @property
    def may_reset(self) -> bool:
        """True if a deletion resets the sandbox."""
        return self._deletions is Deletions.RESET

    @property
    def leftover_files(self) -> int:
        """The number of files in the sandbox that were deleted here."""
        return self._leftovers.files

    def has_pending(self, wanted: Manifest, unread: Collection[str]) -> bool:
        """True if leftovers are to be removed whose removal did not just fail."""
        left = self._leftovers
        if not self.removes or not left.entries:
            return False
        tried = left.changed | set(self._outcomes.failed)
        untried = {path: left.entries[path] for path in left.entries if path not in tried}
        return bool(self._without_exclusions(paths_to_delete((), wanted, unread, untried), wanted))

    def retry_all(self) -> None:
        """Forget what was changed or could not be removed there: it may be as it was uploaded by now, or absent."""
        self._leftovers = replace(self._leftovers, changed=frozenset())
        self._outcomes, self._blocked = RemovalOutcomes(), set()

    def paths_to_delete(
        self, held: Iterable[Mapping[str, Entry]], wanted: Manifest, unread: Collection[str]
    ) -> Versions:
        """Return the paths to delete before `wanted` is initialized, earlier leftovers included.

        Each of `held` may be there.
        """
        held = list(held)
        if not self.removes and not kinds_changed(held, wanted, self._leftovers.entries):
            return {}
        found = self._without_exclusions(paths_to_delete(held, wanted, unread, self._leftovers.entries), wanted)
        if not self.removes:
            found = obstructing(found, wanted)
        # A path that someone changed is tried along with others, as it may be as uploaded again, but is no reason for a
        # removal by itself, unless it blocks a wanted path.
        return {} if found.keys() <= self._leftovers.changed and not blocked_by(found, wanted) else found

    def _without_exclusions(self, found: Versions, wanted: Manifest) -> Versions:
        """Return `found`, or nothing if all of it is only excluded: a new rule must not cause a reset."""
        if self._deletions is Deletions.RESET and all(
            path not in wanted and self._is_excluded(path, versions[-1].kind is Kind.DIRECTORY)
            for path, versions in found.items()
        ):
            return {}
        return found

    def resets(self, paths_to_delete: Versions) -> bool:
        """True if the deletion resets the sandbox, so that only a whole archive can follow."""
        return bool(paths_to_delete) and self.may_reset

    def settle_pending(self, wanted: Manifest) -> None:
        """Make sure that no removal that was started before removes anything that is wanted. Raises `StepFailed`."""
        self._looker.settle_pending(wanted, self._check)
        self.nothing_to_delete()

    def nothing_to_delete(self) -> None:
        """Note that this sync removes nothing."""
        self._outcomes, self._failed, self._blocked = RemovalOutcomes(), {}, set()

    def reset(self, paths_to_delete: Versions) -> None:
        """Reset the sandbox. Raises `StepFailed`, `Stop`."""
        self.nothing_to_delete()
        self._api.reset()
        self._looker.neutralise()
        self._was_reset = True
        _log.info("the sandbox was reset, as %d paths were deleted", len(paths_to_delete))

    def not_removed(self, paths_to_delete: Versions, wanted: Manifest, why: str) -> set[str]:
        """Note that these paths could not be removed; return the paths of `wanted` whose place may still be taken."""
        if not paths_to_delete:
            return set()
        self._outcomes = RemovalOutcomes(failed=paths_to_delete.keys())
        what = f"{len(paths_to_delete)} deleted paths stay in the sandbox ({why})"
        self._failed = {"": SyncWarning("delete", what, 'remove them there, or set sandbox.deletions = "keep"')}
        self._blocked = blocked_by(paths_to_delete, wanted)
        return self._blocked

    def removed(self, looks: Iterable[LookResult], paths_to_delete: Versions, wanted: Manifest) -> set[str]:
        """Note what the looks removed, and return the paths of `wanted` whose place may still be taken.

        A path that cannot be removed becomes a warning and holds nothing else back.
        """
        if not paths_to_delete:
            return set()
        outcome: dict[str, str] = {}
        reasons: dict[str, str] = {}
        for look in looks:
            for path, remote in look.differing.items():
                outcome[path] = "removed" if remote.kind is Kind.ABSENT else "changed"
            outcome |= dict.fromkeys(look.removed, "removed") | dict.fromkeys(look.kept, "kept")
            outcome |= dict.fromkeys(look.failed, "failed")
            reasons |= look.failed
        by: dict[str, list[str]] = {"removed": [], "kept": [], "changed": [], "failed": []}
        for path in paths_to_delete:
            by[outcome.get(path, "changed")].append(path)
        unmoved = {path: paths_to_delete[path] for path in (*by["kept"], *by["changed"], *by["failed"])}
        self._blocked = blocked_by(unmoved, wanted)
        removed = frozenset(by["removed"]).union(p for p in by["kept"] if not is_within(p, self._blocked))
        self._outcomes = RemovalOutcomes(removed, frozenset(by["changed"]), frozenset(by["failed"]))
        self._failed = {
            path: SyncWarning(
                f"delete:{path}",
                f"{shown_path(path)!r} was deleted here and could not be removed in the sandbox ({reasons[path]})",
                "it is tried again with the next sync",
            )
            for path in by["failed"]
            if path not in self._blocked
        }
        counts = len(removed), len(by["changed"]), len(by["failed"])
        _log.info("%d paths removed in the sandbox, %d changed there and kept, %d failed", *counts)
        return self._blocked

    def note_arrived(
        self,
        held: Iterable[Mapping[str, Entry]],
        wanted: Manifest,
        unread: Collection[str],
        secret_files: Collection[str] = (),
    ) -> None:
        """Note what is left over now that the sandbox holds `wanted`; each of `held` may have been there before."""
        before, now, outcomes = self._leftovers, NO_LEFTOVERS, self._outcomes
        if not self._was_reset:
            now = leftovers_after(before, held, wanted, outcomes, unread=unread, secret_files=secret_files)
        self._leftovers, self._was_reset, self._outcomes = now, False, RemovalOutcomes(failed=outcomes.failed)

    def record(self) -> None:
        """Record the leftovers. Raises `OSError`; then only this process knows them."""
        self._file.save(self._leftovers)

    def taken(self, paths: Collection[str]) -> None:
        """Note that these paths are the agent's own: nothing that is there of them is a leftover."""
        if not self._leftovers.entries.keys().isdisjoint(paths):
            self._leftovers = leftovers_without(self._leftovers, paths)
            self._save(self._leftovers)

    def forget(self) -> None:
        """Forget all leftovers: the sandbox does not exist any more."""
        self._save(NO_LEFTOVERS)
        self._leftovers = NO_LEFTOVERS

    def _save(self, leftovers: Leftovers) -> None:
        with contextlib.suppress(OSError):
            self._file.save(leftovers)
