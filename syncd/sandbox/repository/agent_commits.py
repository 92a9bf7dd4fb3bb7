"""Reads the agent's commits in the sandbox's repository by running a program there, and fetches what they changed.

One execution of `commits_in_sandbox` does it. Its report is checked as any foreign text, and each file that it copied
must have the digest that it reported.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace as with_fields

from syncd.core.waiter import Waiter
from syncd.remote.artifacts import Artifacts, ExpectedCopy, NotKeptHere
from syncd.remote.failure import ApiStep
from syncd.remote.job_report import JobReports, invalid_report, is_complete, place_of
from syncd.remote.remote_job import FIRST_POLL_S, JOB_TIMEOUT_S, JobRunner, Purpose, new_job
from syncd.sandbox.look import from_remote
from syncd.sandbox.look_encoding import InvalidReport
from syncd.sandbox.look_request import RemoteEntry
from syncd.sandbox.repository import commits_in_sandbox
from syncd.sandbox.repository.commits_report import MOST_COMMITS, MOST_PATHS, CommitsReport, SandboxCommits, commits_of

_PURPOSE = Purpose(ApiStep.EXECUTION, "the commits there")
_MOST_COPIED_BYTES = 2 << 30


class AgentCommits:
    """The commits in one sandbox."""

    def __init__(self, job_runner: JobRunner, artifacts: Artifacts, waiter: Waiter) -> None:
        self._job_runner = job_runner
        self._reports = JobReports(job_runner, artifacts, waiter)

    def list(self, home: str, folder: str, check: Callable[[], None] = lambda: None) -> SandboxCommits:
        """Return the commits after `home`, without the contents of their paths.

        `folder` is private, and holds nothing more at the end. Raises `StepFailed` if nobody could read them, or if the
        report is not to be trusted, `Stop`, and what `check` raises.
        """
        return self._read(home, folder, check, with_contents=False)

    def fetch(self, home: str, folder: str, check: Callable[[], None] = lambda: None) -> SandboxCommits:
        """Return the commits after `home`, with the contents of their paths as copies in the folder.

        At most 2 GiB are fetched, the smallest files first; what is beyond has no copy. Raises as `list` does.
        """
        return self._read(home, folder, check, with_contents=True)

    def _read(self, home: str, folder: str, check: Callable[[], None], *, with_contents: bool) -> SandboxCommits:
        request = {
            "home": home,
            "most_commits": MOST_COMMITS,
            "most_paths": MOST_PATHS,
            "most_copied_bytes": _MOST_COPIED_BYTES,
            "with_contents": with_contents,
        }
        job = new_job(_PURPOSE, commits_in_sandbox, "commits.json", request)
        self._job_runner.upload(job)
        self._job_runner.start(job)
        output = self._job_runner.output(
            job, check, JOB_TIMEOUT_S, first_wait_s=FIRST_POLL_S, is_complete=lambda text: is_complete(job, text)
        )
        with self._reports.open(job, output, folder, _MOST_COPIED_BYTES, check) as opened:
            try:
                report = commits_of(opened.rows, from_remote)
            except InvalidReport as failure:
                raise invalid_report(job, str(failure)) from None
            wanted = report.expected()
            if sum(entry.size_bytes for entry in wanted.values()) > _MOST_COPIED_BYTES:
                raise invalid_report(job, "more was copied than was asked for")
            expected = {
                number: ExpectedCopy(entry.size_bytes, entry.digest, place_of(job, folder, number))
                for number, entry in wanted.items()
            }
            copies = opened.extract(expected)
        if copies.not_kept:
            raise NotKeptHere(copies.not_kept, "see to room and rights in the cache folder")
        return _with_copies(report, {number: expected[number].path for number in copies.right})


def _with_copies(report: CommitsReport, places: dict[int, str]) -> SandboxCommits:
    """Return the commits, with the copies on this machine."""

    def complete(index: int, path: str, entry: RemoteEntry) -> RemoteEntry:
        place = places.get(report.copies.get((index, path), -1), "")
        return with_fields(entry, copy=place) if place else entry

    return with_fields(
        report.found,
        commits=tuple(
            with_fields(commit, changes={path: complete(index, path, entry) for path, entry in commit.changes.items()})
            for index, commit in enumerate(report.found.commits)
        ),
    )
