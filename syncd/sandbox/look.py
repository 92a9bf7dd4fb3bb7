"""Looks at the sandbox's workspace by running a program there: compares, fetches what differs, and removes.

One execution of `look_in_sandbox` does all of one request. Its report is checked as any foreign text, and each file
that it copied must have the digest that it reported.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Mapping

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.clock import Moment, SystemClock
from syncd.core.errors import KeyRefused, TryLater
from syncd.core.waiter import Waiter
from syncd.model.entry import SeenEntry
from syncd.model.manifest import directories_above
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.remote_job import (
    FIRST_POLL_S,
    JOB_TIMEOUT_S,
    SETTLING_POLLS,
    ExtractedFiles,
    JobRunner,
    Purpose,
    RemoteJob,
    ReportCut,
    new_job,
)
from syncd.remote.target import Target
from syncd.sandbox import look_in_sandbox, program_in_sandbox
from syncd.sandbox.look_encoding import encoded, most_bytes, report_of
from syncd.sandbox.look_request import LookAction, LookRequest, LookResult
from syncd.store.state_db import Record, StateDb

_log = logging.getLogger("syncd.look")
# The sandbox's clock is another machine's, which a test's clock cannot turn.
_REAL = SystemClock()
_FIRST_SETTLING_S = 0.1
_GLANCE_POLLS = 2
# For the requests that prevent what a look that was given up could still remove.
_PREVENT_S = 5.0
# More removals that may still run are not left behind unasked.
_MOST_PENDING = 4
_REMOVAL = Purpose(ApiStep.DELETE, "the removal of files there")
# It removes nothing: its step is the one that follows.
_LOOK = Purpose(ApiStep.INITIALIZE, "the look at the files there")


class RunningLook(Struct, frozen=True):
    """A look that was started: its execution, the moment at which that was asked for, and when that was answered.

    `started_s` is of the monotonic clock. Its program ends `program_s` after it began.
    """

    job: RemoteJob
    request: LookRequest
    asked: Moment
    started_s: float
    program_s: float


class PendingRemoval(Struct, frozen=True):
    """One execution, the target that it was started with, and the paths that it may remove."""

    target: Target
    name: str
    paths: tuple[bytes, ...]

    def may_remove(self, wanted: Collection[str]) -> bool:
        """Return True if it could remove one of the wanted paths, or a directory above one."""
        removed = set(map(os.fsdecode, self.paths))
        return bool(removed) and not (removed.isdisjoint(wanted) and removed.isdisjoint(directories_above(wanted)))


class Looker:
    """Looks at one sandbox's workspace, by one execution each time.

    An execution without an answer may run late, and remove files that are there again and wanted. So each one that
    removes is recorded durably before it is started, and `settle_pending` is called before anything is put there.
    `pending` are those that are not known to have ended: they may be running, or start later.
    """

    def __init__(self, job_runner: JobRunner, db: StateDb, target: Target, waiter: Waiter) -> None:
        self._job_runner = job_runner
        cost = "a removal that was started before may still run"
        self._record = Record(db, "removals", list[PendingRemoval], cost, target.owner)
        self._target = target
        self._waiter = waiter
        self._clock = waiter.clock
        # The sandbox's clock, less this machine's seconds since boot; too little by as much as an answer took.
        self._ahead_s: float | None = None
        self._longest_log: dict[str, int] = {}  # a value of each request, once a log was too short for a report
        self.pending = self._record.load() or []

    def look(
        self,
        request: LookRequest,
        copies_folder: str,
        check: Callable[[], None] = lambda: None,
    ) -> LookResult:
        """Start a look, and wait for it; errors are those of `start` and `finish`."""
        return self.finish(self.start(request, check=check), copies_folder, check)

    def start(
        self,
        request: LookRequest,
        timeout_s: float = JOB_TIMEOUT_S,
        check: Callable[[], None] = lambda: None,
        program_s: float = JOB_TIMEOUT_S,
    ) -> RunningLook:
        """Start a look; its requests together take no longer than `timeout_s` beside the upload of a long list.

        Its program ends `program_s` after it began, and reports what it has. Once an earlier look has told the
        sandbox's time, it removes nothing that long after this call: one that was given up and begins late does
        nothing.

        Raises `StepFailed` if it surely or possibly was not started, `Stop`, and `TryLater` if the state folder cannot
        record what is about to be removed there.
        """
        to_remove = request.with_action(LookAction.REMOVE)
        purpose = _REMOVAL if to_remove else _LOOK
        ends_s = 0.0 if self._ahead_s is None else _REAL.boottime_s() + self._ahead_s + timeout_s + program_s
        values = encoded(request, program_s, ends_s) | self._longest_log
        job = new_job(purpose, look_in_sandbox, values, (program_in_sandbox,))
        try:
            with purpose.limited(self._waiter, timeout_s + job.upload_s):
                if to_remove:
                    self._forget_ended(check)
                self._job_runner.upload(job)
                job = replace(job, files={})  # a long list is not kept in memory until the look ends
                if to_remove:
                    self._note(job, to_remove)
                asked = Moment.now(self._clock)  # its answer may take long, and the program be at its end by then
                self._job_runner.start(job)
        except StepFailed as failure:
            if failure.action is FailureAction.REFUSED:
                self._forget(job.name)
            raise
        return RunningLook(job, request, asked, self._clock.monotonic_s(), program_s)

    def finish(
        self,
        running: RunningLook,
        copies_folder: str,
        check: Callable[[], None] = lambda: None,
        timeout_s: float = JOB_TIMEOUT_S,
        fetch_s: float = 0.0,
    ) -> LookResult:
        """Wait for a look at most so long from now on, and fetch what it copied into that folder, which is private.

        The fetch may take `fetch_s` if that is longer than what is left.

        Raises `StepFailed` if nobody could look, or if the report is not to be trusted (removals may have been done),
        `NotKeptHere` if there is no room for the report; also `Stop`, and what `check` raises. If only the copies could
        not be fetched, the result says so; a copy for which there is no room is lacking. If the log lacks a part of the
        report, the look is made once more with its report in a file, and so are all later ones.
        """
        ends_s = self._clock.monotonic_s() + timeout_s
        try:
            return self._finished(running, copies_folder, check, timeout_s, fetch_s)
        except ReportCut as failure:
            if self._longest_log:
                raise
            _log.info("%s: from now on, reports are in files", failure)
            self._longest_log = {"longest_log": 0}
        again = self.start(running.request, ends_s - self._clock.monotonic_s(), check, running.program_s)
        return self._finished(again, copies_folder, check, ends_s - self._clock.monotonic_s(), fetch_s)

    def _finished(
        self, running: RunningLook, copies_folder: str, check: Callable[[], None], timeout_s: float, fetch_s: float
    ) -> LookResult:
        job, request = running.job, running.request
        now_s = self._clock.monotonic_s()
        ends_s, first_wait_s = now_s + timeout_s, running.started_s + FIRST_POLL_S - now_s
        try:
            with job.purpose.limited(self._waiter, timeout_s):
                output = self._job_runner.output(job, check, timeout_s, first_wait_s)
        except StepFailed as failure:
            if failure.action is FailureAction.RETRY:
                self._stop_if_unstarted(job)
            raise
        self._forget(job.name)
        # All that is there may be GiBs.
        left_s = max(fetch_s, ends_s - self._clock.monotonic_s())
        with (
            job.purpose.limited(self._waiter, left_s),
            self._job_runner.files(job, copies_folder, request.most_copied_bytes, check) as extract,
        ):
            result, ended_s = job.report(output, lambda text: report_of(text, request), most_bytes(request), extract)
            self._ahead_s = ended_s - _REAL.boottime_s()
            copied = {entry.copy: entry for entry in (*result.differing.values(), *result.new.values()) if entry.copy}
            if not copied:
                return result
            try:
                with job.purpose.limited(self._waiter, left_s):
                    return _with_copies(result, extract(copied))
            except StepFailed as failure:
                return replace(_with_copies(result, ExtractedFiles(not_kept=failure.message)), unfetched=failure)

    def settle_pending(self, wanted: Collection[str], check: Callable[[], None] = lambda: None) -> None:
        """Make sure that no look that was started before still removes one of these paths.

        Raises `StepFailed` if one that could is still running after a few polls, `Stop`.
        """
        with _REMOVAL.limited(self._waiter, JOB_TIMEOUT_S):
            for pending in [each for each in self.pending if each.may_remove(wanted)]:
                self._settle(pending, check, SETTLING_POLLS)

    def _note(self, job: RemoteJob, paths: list[str]) -> None:
        """Record a removal that is about to be started. Raises `TryLater`; then it must not be."""
        pending = [*self.pending, PendingRemoval(self._target, job.name, tuple(map(os.fsencode, paths)))]
        try:
            self._record.save(pending)
        except OSError as failure:
            raise TryLater(
                f"the state folder cannot be written ({failure.strerror or failure}), so nothing is removed",
                "free some disk space, or make it writable; a sync follows by itself",
            ) from None
        self.pending = pending

    def _forget(self, name: str) -> None:
        """Forget a removal that has ended."""
        pending = [each for each in self.pending if each.name != name]
        if len(pending) < len(self.pending):
            self.pending = pending
            with contextlib.suppress(OSError):  # this costs the next process a request
                if pending:
                    self._record.save(pending)
                else:
                    self._record.remove()

    def _forget_ended(self, check: Callable[[], None]) -> None:
        """Forget the looks that have ended, mostly those of a process that died. Raises `StepFailed`, `Stop`."""
        for pending in list(self.pending):
            try:
                self._settle(pending, check, _GLANCE_POLLS)
            except StepFailed:
                if len(self.pending) >= _MOST_PENDING:
                    raise

    def _settle(self, pending: PendingRemoval, check: Callable[[], None], polls: int) -> None:
        """Wait until a look that removes has ended, and forget it. Raises `StepFailed`, `Stop`.

        A request to start one that the API does not know may still reach it. The API starts the archive of that name,
        so an empty program replaces it: then it may start at any time.
        """
        wait_s, replaced = _FIRST_SETTLING_S, False
        try:
            for _ in range(polls):
                has_ended = self._job_runner.has_ended(pending.name, _REMOVAL)
                if has_ended or (has_ended is None and replaced):
                    self._forget(pending.name)
                    return
                check()
                if has_ended is None:
                    self._replace(pending)
                    replaced = True
                    continue
                self._waiter.sleep(wait_s)
                wait_s *= 2
        except StepFailed as failure:
            if failure.action is not FailureAction.REFUSED or failure.refusal is KeyRefused:
                raise
            # The sandbox does not exist, or has no executions any more: the wait must not last for ever.
            _log.warning("cannot check if the removal %s has ended: %s", pending.name, failure)
            self._forget(pending.name)
            return
        raise StepFailed(
            ApiStep.DELETE,
            FailureAction.RETRY,
            "a removal that was started in the sandbox before has not ended, and could remove what is sent now",
            "the sync goes on when that has ended; if it never does, reset the sandbox",
        )

    def _replace(self, pending: PendingRemoval) -> None:
        """Have an execution that has not begun do nothing. Raises `StepFailed`, `Stop`."""
        # The API fetches it from the region that it was started with, whatever the configuration is now.
        self._job_runner.upload(RemoteJob(pending.name, _REMOVAL, {"main.py": b""}), pending.target.region)

    def _stop_if_unstarted(self, job: RemoteJob) -> None:
        """Replace the program of a look that was given up: if it has not begun, it does nothing when it does."""
        for pending in [each for each in self.pending if each.name == job.name]:
            with contextlib.suppress(StepFailed), _REMOVAL.limited(self._waiter, _PREVENT_S):
                self._replace(pending)


def _with_copies(result: LookResult, files: ExtractedFiles) -> LookResult:
    """Return the result with the copies on this machine; a copy of another content is of a file that changes."""

    def complete(entries: Mapping[str, SeenEntry]) -> dict[str, SeenEntry]:
        return {
            path: replace(entry, copy=files.paths.get(entry.copy, ""), unstable=entry.copy in files.wrong)
            if entry.copy
            else entry
            for path, entry in entries.items()
        }

    return replace(result, differing=complete(result.differing), new=complete(result.new), not_kept=files.not_kept)
