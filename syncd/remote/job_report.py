"""Reads what a program in the sandbox reported, and fetches the files that it copied beside itself.

A report is the program's output, or the file `report.json` beside the copies if it is too long for a log. Nothing in
either is trusted: this only sees that they are whole; who asked checks what the rows say.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from syncd.core.waiter import Waiter
from syncd.remote.artifacts import (
    Artifacts,
    ExpectedCopy,
    ExtractedCopies,
    NotKeptHere,
    extract_copies,
    read_named,
)
from syncd.remote.failure import FailureAction, StepFailed
from syncd.remote.remote_job import FIRST_POLL_S, JobRunner, JobStage, RemoteJob

# Three seconds in all; a longer wait is the retry loop's, during which the daemon handles other events.
SETTLING_POLLS = 6
_LARGEST_REPORT = 256 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


class JobReports:
    """The reports of the jobs of one sandbox."""

    def __init__(self, job_runner: JobRunner, artifacts: Artifacts, waiter: Waiter) -> None:
        self._job_runner = job_runner
        self._artifacts = artifacts
        self._waiter = waiter

    @contextlib.contextmanager
    def open(
        self, job: RemoteJob, output: str, folder: str, most_copied_bytes: int, check: Callable[[], None]
    ) -> Iterator[JobReport]:
        """Open the report of a job with this output. What is downloaded goes into the folder, and is gone at the end.

        Raises `StepFailed` if the report is not whole, `NotKeptHere`, `Stop`, and what `check` raises.
        """
        archive = os.path.join(folder, f"{job.name}.archive")
        most_bytes = most_copied_bytes + _LARGEST_REPORT

        def download() -> None:
            if not os.path.lexists(archive):
                self._download(job, archive, most_bytes, check)

        try:
            rows = list(job.rows(output))
            if rows and rows[-1][:1] == ["report"]:
                download()
                rows = _long_report(job, rows[-1], archive)
            if not rows or rows[-1][:1] != ["done"]:
                raise job.incomplete(output)
            yield JobReport(job, rows, archive, most_bytes, download, check)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(archive)

    def _download(self, job: RemoteJob, archive: str, most_bytes: int, check: Callable[[], None]) -> None:
        """Download what the program left. It may have printed its last line and not ended yet: then wait for it."""
        wait_s = FIRST_POLL_S
        for _ in range(SETTLING_POLLS):
            try:
                self._artifacts.download(job, archive, most_bytes, check)
            except StepFailed as failure:
                if failure.action is not FailureAction.RETRY:
                    raise
                if self._has_ended(job):
                    if failure.possibly_applied:
                        raise
                    break  # it may have ended just after a request that was refused for it
            else:
                return
            check()
            self._waiter.sleep(wait_s)
            wait_s *= 2
        self._artifacts.download(job, archive, most_bytes, check)

    def _has_ended(self, job: RemoteJob) -> bool:
        return self._job_runner.stage(job.name, job.purpose) is not JobStage.UNDER_WAY


class JobReport(Struct, frozen=True):
    """One report: its rows, of which the last is `done`, and the copies, which `download` puts into `archive`."""

    job: RemoteJob
    rows: list[list[Any]]
    archive: str
    most_bytes: int
    download: Callable[[], None]
    check: Callable[[], None]

    def extract(self, expected: Mapping[int, ExpectedCopy]) -> ExtractedCopies:
        """Fetch these copies. Raises `StepFailed`, and what `check` raises; then none of them stays."""
        if not expected:
            return ExtractedCopies()
        try:
            self.download()
            return extract_copies(self.job, self.archive, expected, self.most_bytes, self.check)
        except NotKeptHere as failure:
            return ExtractedCopies(not_kept=failure.message)


def place_of(job: RemoteJob, folder: str, number: int) -> str:
    """Return the path of a copy in the folder."""
    return os.path.join(folder, f"{job.name}-{number}")


def is_complete(job: RemoteJob, output: str) -> bool:
    """Return True if the last row of the report is there, whole."""
    return job.has_row(output, "done") or job.has_row(output, "report")


def invalid_report(job: RemoteJob, why: str) -> StepFailed:
    """Return the failure for a report that no honest program makes."""
    message = f"the report of {job.purpose.description} is invalid ({why})"
    return StepFailed(job.purpose.step, FailureAction.RETRY, message)


def _long_report(job: RemoteJob, row: list[Any], archive: str) -> list[list[Any]]:
    """Return the rows of a report that is too long for a log. Raises `StepFailed`."""
    match row:
        case [_, int(size_bytes), str(digest)] if 0 <= size_bytes <= _LARGEST_REPORT and _SHA256.fullmatch(digest):
            content = read_named(job, archive, "report.json", size_bytes, bytes.fromhex(digest))
            return list(job.rows(content.decode("ascii", "replace")))
    raise invalid_report(job, "a value has another type")
