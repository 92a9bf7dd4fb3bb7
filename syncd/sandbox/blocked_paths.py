"""Finds out which paths of an archive cannot be extracted in the sandbox, and remembers them while they are blocked.

It does so by one execution, if there is reason to suspect any: the program `blocked_paths_in_sandbox` is uploaded with
the paths and prints what blocks them. It only reads, so one that is late or lost does no harm.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from itertools import islice

from msgspec import Struct

from syncd.core.durable_file import StateFile
from syncd.core.warning import SyncWarning
from syncd.model.entry import Entry
from syncd.model.manifest import Manifest, in_archive_order, is_within
from syncd.remote.failure import ApiStep, StepFailed
from syncd.remote.remote_job import JobRunner, Purpose, RemoteJob, new_job
from syncd.remote.target import Target
from syncd.sandbox import blocked_paths_in_sandbox
from syncd.sandbox.blocked_paths_rules import REPOSITORY, UNKNOWN, entries_within, fingerprint, links_through, warnings
from syncd.selection.git_repository import GIT

_log = logging.getLogger("syncd.blocked_paths")
_CHECK = Purpose(ApiStep.INITIALIZE, "the check of the places there")
# The longest delay of a sync.
_TIMEOUT_S = 20.0
# So that the list stays a small upload. Blocked paths beyond are not found.
MOST_CHECKED = 200_000


class PathsBlocked(Exception):
    """The archive holds blocked paths; without them, it can be extracted."""


class _BlockedRecord(Struct):
    target: Target
    found: list[tuple[bytes, str]]
    mark: bytes


class BlockedPaths:
    """The blocked paths of one sandbox."""

    def __init__(
        self, job_runner: JobRunner, folder: str, target: Target, check: Callable[[], None] = lambda: None
    ) -> None:
        self._job_runner = job_runner
        self._target = target
        self._check = check
        self._file = StateFile(
            folder, "blocked", _BlockedRecord, "paths that are blocked in the sandbox are sent in vain once"
        )
        record = self._file.load()
        self._saved = (
            record if record is not None and record.target.same_sandbox(target) else _BlockedRecord(target, [], b"")
        )
        self._found = {os.fsdecode(path): kind for path, kind in self._saved.found}
        self._fingerprint = self._saved.mark  # of what was withheld at the last check
        self.withheld: dict[str, Entry] = {}  # their entries in the workspace
        self.unblocked: list[str] = []  # withheld paths that can be sent now

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths, in order; all below them is withheld as well."""
        return tuple(sorted(self._found))

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warnings about what is not sent."""
        return warnings(self._found)

    @property
    def changed(self) -> bool:
        """True if a withheld path was changed here since the last check there: reason for another."""
        return bool(self.withheld) and fingerprint(self.withheld) != self._fingerprint

    def withhold(self, manifest: Manifest) -> dict[str, Entry]:
        """Return the entries of the manifest that are known to be blocked, and withhold them from now on."""
        self.withheld, self.unblocked = entries_within(manifest, self._found), []
        # A path that was deleted here is not blocked any more.
        self._found = {path: kind for path, kind in self._found.items() if path in self.withheld}
        self._save()
        return self.withheld

    def with_withheld(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the withheld entries: all that the workspace has."""
        return manifest | self.withheld if self.withheld else manifest

    def forget_repositories(self) -> None:
        """Have repositories take the place of those there."""
        self._found = {
            path: kind for path, kind in self._found.items() if path != GIT or kind not in (REPOSITORY, UNKNOWN)
        }

    def recheck(self, suspects: Collection[str], manifest: Manifest, repositories: Collection[str] = ()) -> None:
        """Find out which of `suspects`, and of the withheld paths, are blocked.

        `manifest` is what the archive holds. `repositories` are folders that are blocked by a repository with commits.
        Raises `PathsBlocked` if it holds a blocked path, `Stop`.
        """
        if not suspects and not self._found and not repositories:
            return
        checked = entries_within(manifest, suspects) | self.withheld
        self._fingerprint = fingerprint(self.withheld)
        try:
            found = self._blocked_of(checked, repositories)
        except StepFailed as failure:
            _log.warning("cannot check what blocks %d paths in the sandbox: %s", len(checked), failure)
            found = dict.fromkeys([*suspects, *repositories], UNKNOWN) | self._found
        self._update(found, manifest)
        self.unblocked = [path for path in self.withheld if not is_within(path, found)]

    def find(self, manifest: Manifest, only: Collection[str] | None) -> bool:
        """Find blocked paths after a failed initialize of `manifest`, or of `only` these paths of it.

        Returns False if the check fails. Raises `PathsBlocked`, `Stop`.
        """
        checked: Mapping[str, Entry] = manifest
        if only is not None:
            checked = {path: manifest[path] for path in in_archive_order(only) if path in manifest}
        try:
            found = self._blocked_of(checked)
        except StepFailed as failure:
            _log.debug("cannot check which paths are blocked in the sandbox: %s", failure)
            return False
        self._update(self._found | found, manifest)
        return True

    def forget(self) -> None:
        """Forget all blocked paths: the sandbox does not exist any more."""
        self._found, self.withheld, self.unblocked = {}, {}, []
        self._save()

    def _update(self, found: dict[str, str], manifest: Manifest) -> None:
        for path in found.keys() - self._found.keys():
            _log.warning("%s", warnings({path: found[path]})[0])
        self._found = found
        try:
            self._raise_if_blocked(manifest)
        finally:
            self._save()

    def _raise_if_blocked(self, manifest: Manifest) -> None:
        found = self._found
        if manifest.paths_within(found):
            # The next scan withholds them, which is no reason for another check.
            self._fingerprint = fingerprint(entries_within(manifest, found) | self.withheld)
            raise PathsBlocked

    def _save(self) -> None:
        """Keep them for the next process, which then withholds them from its first archive."""
        found = [(os.fsencode(path), kind) for path, kind in self._found.items()]
        record = _BlockedRecord(self._target, found, self._fingerprint if found else b"")
        if (record.found, record.mark) == (self._saved.found, self._saved.mark):
            return
        self._saved = record
        with suppress(OSError):
            if found:
                self._file.save(record)
            else:
                self._file.remove()

    def _blocked_of(self, manifest: Mapping[str, Entry], repositories: Collection[str] = ()) -> dict[str, str]:
        """Return the blocked paths, with the kind of what blocks each. Raises `StepFailed`, `Stop`."""
        job = _job(manifest, repositories)
        found = _findings(job, self._job_runner.run(job, self._check, _TIMEOUT_S))
        links = [path for path, kind in found.items() if kind == "l"]
        return found | dict.fromkeys(links_through(manifest, links), "t")


def _job(manifest: Mapping[str, Entry], repositories: Collection[str]) -> RemoteJob:
    checked = dict(islice(manifest.items(), MOST_CHECKED))
    request = {
        # As UTF-8, since the sandbox does not know this machine's encoding of names.
        "paths": [os.fsencode(path).decode("utf-8", "surrogateescape") for path in checked],
        "kinds": "".join(entry.kind for entry in checked.values()),
        "repositories": [*repositories],
    }
    return new_job(_CHECK, blocked_paths_in_sandbox, "paths.json", request)


def _findings(job: RemoteJob, output: str) -> dict[str, str]:
    """Return what the program found. Raises `StepFailed` if its output is incomplete."""
    found: dict[str, str] = {}
    for row in job.rows(output):
        match row:
            case ["blocked", list(items)]:
                for item in items:
                    match item:
                        case [str(path), str(kind)]:
                            found[os.fsdecode(path.encode("utf-8", "surrogateescape"))] = kind
            case ["done", int(count)] if count == len(found):
                return found
    raise job.incomplete(output)
