"""Checks, before an archive overwrites files in the sandbox, if someone there changed them, and warns of it.

It does so by one execution: the program `overwrite_check_in_sandbox` is uploaded with the expected paths, sizes and
times, and prints what differs. It only reads, so one that is late or lost does no harm; if it fails, the sync goes on.
"""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Callable, Collection
from typing import Any, Protocol

from syncd.core.clock import Clock, stamp
from syncd.core.text import shown_path
from syncd.core.warning import SyncWarning
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.remote_job import JobRunner, Purpose, RemoteJob, new_job
from syncd.remote.retry import backoff_limit_s
from syncd.sandbox import overwrite_check_in_sandbox
from syncd.sandbox.overwrite_warnings import ABSENT, OTHER, CheckList, RemoteChange, RemoteEntry, change_of, warnings
from syncd.sandbox.removal_plan import within
from syncd.scan.manifest import Entry, Kind

_log = logging.getLogger("syncd.overwrite_check")
# The longest delay of a sync …
TIMEOUT_S = 20.0
# … and the wait for the next check after a failed one.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 15.0, 900.0
# Overwritten content is lost. The warning stays for so long, or a save a second later would remove it.
WARNED_FOR_S = 3600.0
_MOST_LOGGED = 50
# It removes nothing: its step is the one that follows.
_CHECK = Purpose(ApiStep.INITIALIZE, "the check of the files there")


class OverwriteCheck(Protocol):
    """A check before files in the sandbox are overwritten."""

    def check(self, ask: Callable[[], CheckList]) -> None:
        """Find out which files were changed there. Raises `Stop`."""

    def initialized(self) -> None:
        """Note that the initialize that followed the check was answered."""

    def exclude(self, paths: Collection[str]) -> None:
        """Note that the archive is not extracted, and that the next one leaves out these paths with all below them."""

    def forget(self) -> None:
        """Forget all warnings: a person accepts the state."""

    @property
    def enabled(self) -> bool:
        """True if files are checked at all."""

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warnings about overwritten files and failed checks."""


class NoOverwriteCheck:
    """Checks nothing."""

    def check(self, ask: Callable[[], CheckList]) -> None:
        """Do nothing."""

    def initialized(self) -> None:
        """Do nothing."""

    def exclude(self, paths: Collection[str]) -> None:
        """Do nothing."""

    def forget(self) -> None:
        """Do nothing."""

    @property
    def enabled(self) -> bool:
        """False."""
        return False

    @property
    def warnings(self) -> list[SyncWarning]:
        """No warnings."""
        return []


class RemoteOverwriteCheck:
    """Checks files in one sandbox."""

    def __init__(self, job_runner: JobRunner, clock: Clock, check: Callable[[], None] = lambda: None) -> None:
        self._job_runner = job_runner
        self._clock = clock
        self._check = check
        self._found: dict[str, RemoteChange] = {}  # not known to be overwritten yet
        self._overwritten: dict[str, tuple[RemoteChange, float]] = {}  # with the monotonic second
        self._overwritten_at = ""
        self._failures = 0
        self._not_before_s = 0.0
        self._failed: list[SyncWarning] = []

    def check(self, ask: Callable[[], CheckList]) -> None:
        """Find out which files were changed there. Raises `Stop`."""
        if self._failures and self._clock.monotonic_s() < self._not_before_s:
            return
        check_list = ask()
        if not check_list.versions:
            return
        try:
            differing = self._differing(check_list)
        except StepFailed as failure:
            self._fail(failure)
            return
        self._failures, self._failed = 0, []
        found = {
            path: kind for path, entry in differing.items() if (kind := change_of(check_list, path, entry)) is not None
        }
        for path in list(found)[:_MOST_LOGGED]:
            what = found[path].value[0].format(it="it")
            _log.warning("%r was %s: it is about to be overwritten", shown_path(path), what)
        if len(found) > _MOST_LOGGED:
            _log.warning("and %d more", len(found) - _MOST_LOGGED)
        self._found |= found

    def initialized(self) -> None:
        """Note that the initialize that followed the check was answered."""
        now_s = self._clock.monotonic_s()
        self._overwritten = {
            path: entry for path, entry in self._overwritten.items() if now_s < entry[1] + WARNED_FOR_S
        }
        if self._found:
            self._overwritten |= {path: (kind, now_s) for path, kind in self._found.items()}
            self._overwritten_at = f"{stamp(self._clock.wall_s())[11:16]} UTC"
        self._found = {}

    def exclude(self, paths: Collection[str]) -> None:
        """Note that the archive is not extracted, and that the next one leaves out these paths with all below them."""
        self._found = {path: kind for path, kind in self._found.items() if not within(path, paths)}

    def forget(self) -> None:
        """Forget all warnings and failures: a person accepts the state."""
        self._overwritten, self._failures, self._failed = {}, 0, []

    @property
    def enabled(self) -> bool:
        """True."""
        return True

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warnings about files overwritten within the last hour, and about a failed check."""
        now_s = self._clock.monotonic_s()
        recent = {path: kind for path, (kind, since_s) in self._overwritten.items() if now_s < since_s + WARNED_FOR_S}
        return [*warnings(recent, self._overwritten_at), *self._failed]

    def _fail(self, failure: StepFailed) -> None:
        self._failures += 1
        wait_s = backoff_limit_s(self._failures, _FIRST_WAIT_S, _LONGEST_WAIT_S)
        self._not_before_s = self._clock.monotonic_s() + wait_s
        what = f"files in the sandbox could not be checked for changes ({failure.message}), and the sync went on"
        remedy = "a later sync checks again"
        if failure.action is FailureAction.REFUSED:
            remedy = "if this sandbox runs no programs, set sandbox.warn_on_remote_changes = false"
        self._failed = [SyncWarning("remote-changes", what, remedy)]

    def _differing(self, check_list: CheckList) -> dict[str, RemoteEntry]:
        """Return the entries there that differ from what was sent. Raises `StepFailed`, `Stop`."""
        job = _job(check_list)
        output = self._job_runner.run(job, self._check, TIMEOUT_S)
        paths = list(check_list.versions)
        try:
            findings = [(paths[item[0]], _entry(item)) for item in _findings(job, output)]
        except (ValueError, TypeError, LookupError):
            raise StepFailed(
                _CHECK.step, FailureAction.RETRY, f"the output of {_CHECK.description} is invalid"
            ) from None
        return {path: entry for path, entry in findings if entry is not None}


def _job(check_list: CheckList) -> RemoteJob:
    """Return the program and its list, in columns, which compress best."""
    request = {
        # As UTF-8, since the sandbox does not know this machine's encoding of names.
        "paths": [os.fsencode(path).decode("utf-8", "surrogateescape") for path in check_list.versions],
        "kinds": "".join(entries[0].kind for entries in check_list.versions.values()),
        "stamps": [_stamps(entries) for entries in check_list.versions.values()],
    }
    return new_job(_CHECK, overwrite_check_in_sandbox, "paths.json", request)


def _stamps(entries: list[Entry]) -> list[int]:
    stamps: list[int] = []
    for pair in dict.fromkeys((e.size_bytes, e.mtime_s) for e in entries if e.kind is Kind.FILE):
        stamps += pair
    return stamps


def _findings(job: RemoteJob, output: str) -> list[list[Any]]:
    """Return what the program found. Raises `StepFailed` if its output is incomplete."""
    found: list[list[Any]] = []
    for row in job.rows(output):
        match row:
            case ["seen", list(items)]:
                found += items
            case ["done", int(count)] if count == len(found):
                return found
    raise job.incomplete(output)


def _entry(item: list[Any]) -> RemoteEntry | None:
    match item[1:]:
        case ["absent"]:
            return ABSENT
        case ["d"]:
            return RemoteEntry(Kind.DIRECTORY)
        case ["l", str(digest)]:
            return RemoteEntry(Kind.SYMLINK, digest=base64.b64decode(f"{digest}=="))
        case ["f", int(size_bytes), str(digest)]:
            return RemoteEntry(Kind.FILE, size_bytes, base64.b64decode(f"{digest}=="))
        case ["other"]:
            return OTHER
    return None  # it could not be read
