"""Keeps a git repository in the sandbox that holds what was sent, so that an agent can work as git users do.

One execution makes it, and one follows each sync that arrived; the program is `repository_in_sandbox`. Nothing of it is
part of a comparison or a removal. What fails here is one warning, and no sync waits for it: newer changes end the wait.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from datetime import datetime

from msgspec.structs import replace

from syncd.core.clock import Clock
from syncd.core.formatting import counted
from syncd.core.text import one_line
from syncd.core.waiter import Superseded, SupersededBy, Waiter
from syncd.core.warning import SyncWarning
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.remote.failure import ApiStep, StepFailed, backoff_limit_s
from syncd.remote.remote_job import JobRunner, Purpose, new_job
from syncd.remote.target import Target
from syncd.sandbox.repository import git_in_sandbox, import_in_sandbox, repository_in_sandbox
from syncd.sandbox.repository.home_commit import HomeCommit, home_commit_file
from syncd.sandbox.repository.repository_request import (
    RepositoryReport,
    RepositoryState,
    branch_there,
    encoded_versions,
    report_of,
    versions_of,
)
from syncd.selection.builtin_rules import DEFAULTS, SECRETS
from syncd.selection.git_repository import GIT

_log = logging.getLogger("syncd.repository")
_FOLLOW = Purpose(ApiStep.EXECUTION, "the git repository there")
# A sync that a command waits for waits so long for the repository too.
_FOLLOW_S = 15.0
_MAKE_S = 120.0
# It runs git a dozen times; a poll that comes too early would cost one request more.
_FIRST_POLL_S = 0.4
# After a failure; a git that is installed later is found that late.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 15.0, 900.0
# The list of all paths stays an upload of a few MB.
MOST_PATHS = 200_000
# For the `info/exclude` there, so that what tools make there does not count as the agent's work. The workspace's
# `.gitignore` files are there anyway; the text of other rules stays at home.
_EXCLUDES = "".join(f"{pattern}\n" for pattern in (*DEFAULTS, *SECRETS))
_REMEDY = 'see that git works there, or set workspace.git = "none"'


class AgentRepository:
    """The repository in one sandbox. `home_branch` returns the branch here; None: no repository is made there."""

    def __init__(
        self,
        home_branch: Callable[[], str | None],
        job_runner: JobRunner,
        target: Target,
        state_folder: str,
        waiter: Waiter,
    ) -> None:
        self._home_branch = home_branch
        self._job_runner = job_runner
        self._target = target
        self._waiter = waiter
        self._clock: Clock = waiter.clock
        self._file = home_commit_file(state_folder)
        record = self._file.load()
        self._record = record if record is not None and record.target.same_sandbox(target) else None
        self._followed: Manifest | None = None  # what the commit holds, as far as it is known
        self._unanswered: set[str] = set()  # paths that it may hold in yet another version
        self._failures = 0
        self._not_before_s = 0.0
        self.warnings: list[SyncWarning] = []

    def recall(self, base: Manifest, identity: str) -> None:
        """Note the base that an earlier process recorded: the commit may hold it already."""
        if self._record is not None and self._record.base == identity:
            self._followed = base

    def forget(self) -> None:
        """Forget the repository: the sandbox does not exist any more, or was reset."""
        self._record, self._followed, self._unanswered = None, None, set()
        with contextlib.suppress(OSError):
            self._file.remove()

    def follow(self, base: Manifest, identity: str) -> None:
        """Have the repository hold the base. What fails is a warning, and is tried again later. Raises `Stop`."""
        if GIT in base and self._record is not None:
            self.forget()  # the workspace's own has its place
        if self._clock.monotonic_s() < self._not_before_s or (self._record is not None and not self._record.commit):
            return
        if self._record is not None and self._followed is not None and not self._versions(base):
            self._followed, self.warnings = base, []
            if self._record.base != identity:  # or else the next process would compare all
                self._save(replace(self._record, base=identity))
            return
        branch = self._home_branch()
        if branch is None:
            self.warnings = []
            return
        if base.files > MOST_PATHS:
            self._warn(f"the workspace has more than {MOST_PATHS:,} files, so no git repository is made in the sandbox")
            return
        try:
            with self._waiter.superseded_by(SupersededBy.ANY_CHANGE):
                report = self._asked(branch, base)
        except Superseded:
            return  # the sync that follows has it follow as well
        except StepFailed as failure:
            self._failed(f"the git repository in the sandbox could not follow ({failure.message})")
        else:
            self._note(report, base, identity)

    def _versions(self, base: Manifest) -> dict[str, Entry | None]:
        """Return the versions that the commit may lack; if it is not known at all, those of all paths."""
        maybe = {path: base.get(path) for path in self._unanswered}
        maybe = {path: None if entry and entry.kind is Kind.DIRECTORY else entry for path, entry in maybe.items()}
        return {**maybe, **versions_of(self._followed or Manifest(), base)}

    def _asked(self, branch: str, base: Manifest) -> RepositoryReport:
        if self._followed is not None and self._record is not None:
            report = self._run(branch, base, self._record.commit)
            if report.state is not RepositoryState.LOST:
                return report
        self._followed, self._unanswered = None, set()
        return self._run(branch, base, "")

    def _run(self, branch: str, base: Manifest, commit: str) -> RepositoryReport:
        """Run the program for what the commit may lack; none: for all. Raises `StepFailed`, `Superseded`, `Stop`."""
        now = datetime.fromtimestamp(self._clock.wall_s()).astimezone()
        timeout_s = _FOLLOW_S if commit else _MAKE_S
        versions = self._versions(base)
        request = {
            **encoded_versions(versions),
            "whole": not commit,
            "home": commit,
            "branch": branch_there(branch),
            "exclude": _EXCLUDES,
            "message": f"workspace as of {now:%Y-%m-%d %H:%M:%S %z}\n",
            "at_s": int(now.timestamp()),
            "zone": f"{now:%z}",
            "within_s": timeout_s,
        }
        job = new_job(_FOLLOW, repository_in_sandbox, "repository.json", request, (git_in_sandbox, import_in_sandbox))
        self._job_runner.upload(job)
        if commit:
            self._unanswered.update(versions)
        self._job_runner.start(job)
        output = self._job_runner.output(
            job, timeout_s=timeout_s, first_wait_s=_FIRST_POLL_S, is_complete=lambda text: job.has_row(text, "done")
        )
        report = report_of(job.rows(output))
        if report is None:
            raise job.incomplete(output)
        return report

    def _note(self, report: RepositoryReport, base: Manifest, identity: str) -> None:
        match report.state:
            case RepositoryState.MADE | RepositoryState.FOLLOWED:
                self._failures, self.warnings, self._followed, self._unanswered = 0, [], base, set()
                self._save(HomeCommit(target=self._target, commit=report.home, base=identity))
                note = "" if report.moved else "; the agent's branch stays, as someone works there"
                _log.info("the repository in the sandbox is at %s%s", report.home[:10], note)
                if report.left_out:
                    paths = counted(report.left_out, "path")
                    _log.info("%s in the sandbox were changed there, and are in the repository as before", paths)
            case RepositoryState.FOREIGN:
                self.warnings = []
                self._save(HomeCommit(target=self._target, commit="", base=""))
                _log.info("the sandbox has a git repository of someone else's, which is left alone")
            case RepositoryState.NO_GIT:
                self._failed("the sandbox has no git, so no repository is made there")
            case _:
                why = one_line(report.why, 160)
                self._failed(f"the git repository in the sandbox could not follow ({why})")

    def _failed(self, what: str) -> None:
        self._failures += 1
        wait_s = backoff_limit_s(self._failures, _FIRST_WAIT_S, _LONGEST_WAIT_S)
        self._not_before_s = self._clock.monotonic_s() + wait_s
        self._warn(what)

    def _warn(self, what: str) -> None:
        if not self.warnings:
            _log.warning("%s", what)
        self.warnings = [SyncWarning("repository", what, _REMEDY)]

    def _save(self, record: HomeCommit) -> None:
        self._record = record
        with contextlib.suppress(OSError):  # the next process compares the whole once
            self._file.save(record)
