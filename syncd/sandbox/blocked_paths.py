"""Finds out which paths of an archive cannot be extracted in the sandbox, and remembers them while that is so.

By one execution, where there is reason to suspect it: the program (`blocked_script`) goes up with the paths and says
what is in their way. It only reads, so one that is late or lost does no harm.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from itertools import islice

from msgspec import Struct

from syncd.core.durable_file import StateFile
from syncd.core.text import one_line
from syncd.core.warning import SyncWarning
from syncd.remote.failure import StepFailed
from syncd.remote.failure_action import ApiStep, FailureAction
from syncd.remote.remote_job import JobRunner, Purpose, RemoteJob, new_name
from syncd.remote.target import Target
from syncd.sandbox import blocked_paths_main
from syncd.sandbox.blocked_paths_rules import UNKNOWN, mark, warnings, within_of
from syncd.sandbox.removal_plan import within
from syncd.scan.manifest import Manifest

_log = logging.getLogger("syncd.blocked")
_LOOK = Purpose(ApiStep.INITIALIZE, "the look at the places there")
# A sync is held up by no more than this.
_TIMEOUT_S = 20.0
# So that the list stays a small upload. What hinders a path beyond is not found.
MOST_ASKED = 200_000


class PathsBlocked(Exception):
    """The archive holds paths that cannot be put there; without them, the others can."""


class _BlockedRecord(Struct):
    target: Target
    found: list[tuple[bytes, str]]
    mark: bytes


class BlockedPaths:
    """Those of one sandbox."""

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
        self._kept = (
            record if record is not None and record.target.same_sandbox(target) else _BlockedRecord(target, [], b"")
        )
        self._found = {os.fsdecode(path): there for path, there in self._kept.found}
        self._mark = self._kept.mark  # of what was aside at the last look
        self.aside: Manifest = {}  # what the workspace has of them
        self.freed: list[str] = []  # of what is aside, what could be sent by now

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths, in order; what is below them is left out as well."""
        return tuple(sorted(self._found))

    @property
    def warnings(self) -> list[SyncWarning]:
        """What is not sent, why, and what to do."""
        return warnings(self._found)

    @property
    def changed(self) -> bool:
        """Whether one of them was changed here since the last look there: reason for another."""
        return bool(self.aside) and mark(self.aside) != self._mark

    def set_aside(self, manifest: Manifest) -> Manifest:
        """Take what is known to be blocked out of the manifest: that part of it."""
        self.aside, self.freed = within_of(manifest, self._found), []
        # What is gone here is nobody's trouble any more.
        self._found = {path: there for path, there in self._found.items() if path in self.aside}
        self._keep()
        return self.aside

    def and_aside(self, manifest: Manifest) -> Manifest:
        """The manifest with what is aside: all that the workspace has."""
        return manifest | self.aside if self.aside else manifest

    def settle(self, suspects: Collection[str], manifest: Manifest) -> None:
        """See what of `suspects`, and of what is aside, is blocked still.

        `manifest` is what the archive holds. Raises `PathsBlocked` if it holds any that is blocked, `Stop`.
        """
        if not suspects and not self._found:
            return
        asked = within_of(manifest, suspects) | self.aside
        self._mark = mark(self.aside)
        try:
            found = self._look(asked)
        except StepFailed as failure:
            _log.warning("what is in the way of %d paths there could not be seen: %s", len(asked), failure)
            found = dict.fromkeys(suspects, UNKNOWN) | self._found
        self._learned(found, manifest)
        self.freed = [path for path in self.aside if not within(path, found)]

    def find(self, manifest: Manifest, only: Collection[str] | None) -> bool:
        """Look, after a failed initialize of `manifest`, or of `only` these paths of it, whether any is blocked.

        False where that cannot be seen. Raises `PathsBlocked`, `Stop`.
        """
        try:
            found = self._look(manifest if only is None else {p: manifest[p] for p in manifest if p in only})
        except StepFailed as failure:
            _log.debug("what the sandbox could not take cannot be seen: %s", failure)
            return False
        self._learned(self._found | found, manifest)
        return True

    def forget(self) -> None:
        """The sandbox is gone, and what had places there."""
        self._found, self.aside, self.freed = {}, {}, []
        self._keep()

    def _learned(self, found: dict[str, str], manifest: Manifest) -> None:
        for path in found.keys() - self._found.keys():
            _log.warning("%s", warnings({path: found[path]})[0])
        self._found = found
        try:
            self._refuse_blocked(manifest)
        finally:
            self._keep()

    def _refuse_blocked(self, manifest: Manifest) -> None:
        found = self._found
        if any(within(path, found) for path in manifest):
            # Set aside by the next look at the workspace, which is no reason to look there again.
            self._mark = mark(within_of(manifest, found) | self.aside)
            raise PathsBlocked

    def _keep(self) -> None:
        """Note them for the next process, which sends nothing in vain then."""
        found = [(os.fsencode(path), there) for path, there in self._found.items()]
        record = _BlockedRecord(self._target, found, self._mark if found else b"")
        if (record.found, record.mark) == (self._kept.found, self._kept.mark):
            return
        self._kept = record
        with suppress(OSError):
            if found:
                self._file.save(record)
            else:
                self._file.remove()

    def _look(self, manifest: Manifest) -> dict[str, str]:
        """What is in whose way. Raises `StepFailed`, `Stop`."""
        job = _job(manifest, new_name())
        self._job_runner.upload(job)
        self._job_runner.start(job)
        return _findings(self._job_runner.printed(job, self._check, _TIMEOUT_S), job.name)


def _job(manifest: Manifest, name: str) -> RemoteJob:
    asked = dict(islice(manifest.items(), MOST_ASKED))
    content = {
        "word": name,
        # Not by this machine's encoding of names, which the sandbox does not know.
        "paths": [os.fsencode(path).decode("utf-8", "surrogateescape") for path in asked],
        "kinds": "".join(entry.kind for entry in asked.values()),
    }
    with open(blocked_paths_main.__file__, "rb") as file:
        files = {"main.py": file.read(), "paths.json": json.dumps(content, separators=(",", ":")).encode("ascii")}
    return RemoteJob(name, _LOOK, files)


def _findings(printed: str, word: str) -> dict[str, str]:
    """What the program found. Raises `StepFailed` where it did not come to its end."""
    found: dict[str, str] = {}
    for line in printed.splitlines():
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            continue
        match said:
            case [who, "blocked", list(items)] if who == word:
                for item in items:
                    match item:
                        case [str(path), str(there)]:
                            found[os.fsdecode(path.encode("utf-8", "surrogateescape"))] = there
            case [who, "done", int(count)] if who == word and count == len(found):
                return found
    last = printed.strip().splitlines()[-1:] or ["nothing was printed"]
    message = f"looking at the paths there did not come to its end ({one_line(last[0], 120)})"
    raise StepFailed(_LOOK.step, FailureAction.RETRY, message)
