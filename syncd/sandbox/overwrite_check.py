"""Looks, before an archive overwrites files in the sandbox, whether someone there changed them, and tells of it.

By one execution: the program (`inspection_script`) goes up with the paths, sizes and times that are expected, and says
what is otherwise. It only reads, so one that is late or lost does no harm; whatever fails, the sync goes on.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Callable, Collection
from typing import Any, Protocol

from syncd.core.clock import Clock, stamp
from syncd.core.text import one_line, shown_path
from syncd.core.warning import SyncWarning
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.remote_job import JobRunner, Purpose, RemoteJob, new_name
from syncd.remote.retry import backoff_limit_s
from syncd.sandbox import overwrite_check_main
from syncd.sandbox.remote_changes import ABSENT, OTHER, CheckList, RemoteChange, RemoteEntry, change, warnings
from syncd.sandbox.removal_plan import within
from syncd.scan.manifest import Entry, Kind

_log = logging.getLogger("syncd.inspection")
# A sync is held up by no more than this …
TIMEOUT_S = 20.0
# … and after a failure not again at once.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 15.0, 900.0
# What is lost cannot be mended. It is told for so long, as a save a second later would else wipe the word away.
WARNED_FOR_S = 3600.0
_MOST_LOGGED = 50
# It removes nothing: the step is the one that it comes before.
_LOOK = Purpose(ApiStep.INITIALIZE, "the look at the files there")


class OverwriteCheck(Protocol):
    """Who looks before files in the sandbox are overwritten."""

    def look(self, ask: Callable[[], CheckList]) -> None:
        """Find out what was changed there. Raises `Stop`."""

    def overwritten(self) -> None:
        """The initialize that followed was answered."""

    def spare(self, paths: Collection[str]) -> None:
        """The archive is not put there; the next one leaves out these, with what is below them."""

    def forget(self) -> None:
        """A person takes it as it is."""

    @property
    def looks(self) -> bool:
        """Whether anything is ever asked."""

    @property
    def warnings(self) -> list[SyncWarning]:
        """What was written over, and what could not be seen."""


class NoOverwriteCheck:
    """Nobody looks, and nothing is asked."""

    def look(self, ask: Callable[[], CheckList]) -> None:
        """Not done."""

    def overwritten(self) -> None:
        """Of no interest."""

    def spare(self, paths: Collection[str]) -> None:
        """Of no interest."""

    def forget(self) -> None:
        """There is nothing."""

    @property
    def looks(self) -> bool:
        """No."""
        return False

    @property
    def warnings(self) -> list[SyncWarning]:
        """None."""
        return []


class RemoteOverwriteCheck:
    """Looks into one sandbox."""

    def __init__(self, job_runner: JobRunner, clock: Clock, check: Callable[[], None] = lambda: None) -> None:
        self._job_runner = job_runner
        self._clock = clock
        self._check = check
        self._found: dict[str, RemoteChange] = {}  # nobody knows yet whether it was overwritten
        self._told: dict[str, tuple[RemoteChange, float]] = {}  # with the monotonic second
        self._told_at = ""
        self._failures = 0
        self._not_before_s = 0.0
        self._failed: list[SyncWarning] = []

    def look(self, ask: Callable[[], CheckList]) -> None:
        """Find out what was changed there. Raises `Stop`."""
        if self._failures and self._clock.monotonic_s() < self._not_before_s:
            return
        asked = ask()
        if not asked.versions:
            return
        try:
            seen = self._seen(asked)
        except StepFailed as failure:
            self._fail(failure)
            return
        self._failures, self._failed = 0, []
        found = {path: kind for path in seen if (kind := change(asked, path, seen[path])) is not None}
        for path in list(found)[:_MOST_LOGGED]:
            what = found[path].value[0].format(it="it")
            _log.warning("%r was %s: it is about to be overwritten", shown_path(path), what)
        if len(found) > _MOST_LOGGED:
            _log.warning("and %d more", len(found) - _MOST_LOGGED)
        self._found |= found

    def overwritten(self) -> None:
        """The initialize that followed was answered."""
        now_s = self._clock.monotonic_s()
        self._told = {path: told for path, told in self._told.items() if now_s < told[1] + WARNED_FOR_S}
        if self._found:
            self._told |= {path: (kind, now_s) for path, kind in self._found.items()}
            self._told_at = f"{stamp(self._clock.wall_s())[11:16]} UTC"
        self._found = {}

    def spare(self, paths: Collection[str]) -> None:
        """The archive is not put there; the next one leaves out these, with what is below them."""
        self._found = {path: kind for path, kind in self._found.items() if not within(path, paths)}

    def forget(self) -> None:
        """A person takes it as it is, and wants to know anew what cannot be seen."""
        self._told, self._failures, self._failed = {}, 0, []

    @property
    def looks(self) -> bool:
        """Yes."""
        return True

    @property
    def warnings(self) -> list[SyncWarning]:
        """What was written over within the last hour, and what could not be seen."""
        now_s = self._clock.monotonic_s()
        told = {path: kind for path, (kind, since_s) in self._told.items() if now_s < since_s + WARNED_FOR_S}
        return [*warnings(told, self._told_at), *self._failed]

    def _fail(self, failure: StepFailed) -> None:
        self._failures += 1
        wait_s = backoff_limit_s(self._failures, _FIRST_WAIT_S, _LONGEST_WAIT_S)
        self._not_before_s = self._clock.monotonic_s() + wait_s
        what = f"whether files were changed in the sandbox could not be seen ({failure.message}), and the sync went on"
        remedy = "a later sync looks again"
        if failure.action is FailureAction.REFUSED:
            remedy = "if this sandbox runs no programs, set sandbox.warn_on_remote_changes = false"
        self._failed = [SyncWarning("remote-changes", what, remedy)]

    def _seen(self, asked: CheckList) -> dict[str, RemoteEntry]:
        """What is not as it was sent. Raises `StepFailed`, `Stop`."""
        job = _job(asked, new_name())
        self._job_runner.upload(job)
        self._job_runner.start(job)
        printed = self._job_runner.output(job, self._check, TIMEOUT_S)
        paths = list(asked.versions)
        try:
            findings = [(paths[item[0]], _read(item)) for item in _findings(printed, job.name)]
        except (ValueError, TypeError, LookupError):
            raise StepFailed(
                _LOOK.step, FailureAction.RETRY, f"what came of {_LOOK.description} makes no sense"
            ) from None
        return {path: seen for path, seen in findings if seen is not None}


def _job(asked: CheckList, name: str) -> RemoteJob:
    """The program and its list, in columns, as these are packed best."""
    content = {
        "word": name,
        # Not by this machine's encoding of names, which the sandbox does not know.
        "paths": [os.fsencode(path).decode("utf-8", "surrogateescape") for path in asked.versions],
        "kinds": "".join(entries[0].kind for entries in asked.versions.values()),
        "stamps": [_stamps(entries) for entries in asked.versions.values()],
    }
    with open(overwrite_check_main.__file__, "rb") as file:
        files = {"main.py": file.read(), "paths.json": json.dumps(content, separators=(",", ":")).encode("ascii")}
    return RemoteJob(name, _LOOK, files)


def _stamps(entries: list[Entry]) -> list[int]:
    stamps: list[int] = []
    for pair in dict.fromkeys((e.size_bytes, e.mtime_s) for e in entries if e.kind is Kind.FILE):
        stamps += pair
    return stamps


def _findings(printed: str, word: str) -> list[list[Any]]:
    """What the program found. Raises `StepFailed` where it did not come to its end."""
    found: list[list[Any]] = []
    for line in printed.splitlines():
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            continue
        match said:
            case [who, "seen", list(items)] if who == word:
                found += items
            case [who, "done", int(count)] if who == word and count == len(found):
                return found
    last = printed.strip().splitlines()[-1:] or ["nothing was printed"]
    message = f"{_LOOK.description} did not come to its end ({one_line(last[0], 120)})"
    raise StepFailed(_LOOK.step, FailureAction.RETRY, message)


def _read(item: list[Any]) -> RemoteEntry | None:
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
    return None  # it could not be looked at
