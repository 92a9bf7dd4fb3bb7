"""Keeps a git repository in the sandbox that holds what was sent, and fetches the commits that the agent makes there.

One execution of `repository_in_sandbox` makes the repository, one follows what arrived since the last one, and one of
`commits_in_sandbox` packs the agent's commits. Nothing of it is part of a comparison or a removal. A report is checked
as any foreign text; what is in the pack, git says. Where the repository cannot follow, that is one warning, and no sync
waits for it: newer changes end the wait.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from types import ModuleType
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from syncd.core.errors import SyncWarning
from syncd.core.text import one_line
from syncd.core.waiter import SupersededBy, Waiter
from syncd.model.entry import EXECUTABLE, Entry, Kind, arrived_digest
from syncd.model.manifest import Manifest, removed_paths, replaced_entries
from syncd.remote.failure import ApiStep, StepFailed, backoff_limit_s
from syncd.remote.remote_job import (
    JOB_TIMEOUT_S,
    JobRunner,
    Purpose,
    RemoteJob,
    new_job,
)
from syncd.remote.target import Target
from syncd.sandbox import program_in_sandbox
from syncd.sandbox.look_encoding import Count, Text, encoded_versions, from_remote, to_remote
from syncd.sandbox.repository import commits_in_sandbox, git_in_sandbox, repository_in_sandbox
from syncd.selection.builtin_rules import DEFAULTS, SECRETS
from syncd.selection.ignore_files import GIT
from syncd.store.state_db import Record, StateDb

_log = logging.getLogger("syncd.repository")
_FOLLOW = Purpose(ApiStep.EXECUTION, "the git repository there")
_PACK = Purpose(ApiStep.EXECUTION, "the commits there")
# A sync that a command waits for waits so long for the repository too.
_FOLLOW_S = 15.0
_MAKE_S = 120.0
# A run that nobody waits for any more goes on: the next one finds what it did.
_RUN_S = 600
_PACK_S = 90
# It runs git a dozen times; a poll that comes too early would cost one request more.
_FIRST_POLL_S = 0.4
# After a failure; a git that is installed later is found that late.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 15.0, 900.0
# The list of all paths stays an upload of a few MB.
MOST_FILES = 200_000
# Of the agent's commits. More are left to what is not committed.
_MOST_COMMITS = 1_000
MOST_PATHS = 100_000
MOST_BYTES = 2 << 30  # of all objects of a pack
_MOST_PACK_BYTES = MOST_BYTES + (64 << 20)
_MOST_REPORT_BYTES = 2 << 20  # a thousand commits and a hundred branches are some 200 KB
# For the `info/exclude` there, so that what tools make there does not count as the agent's work. The workspace's
# `.gitignore` files are there anyway; the text of other rules stays at home.
_EXCLUDES = "".join(f"{pattern}\n" for pattern in (*DEFAULTS, *SECRETS))
_REMEDY = 'see that git works there, or set workspace.git = "none"'
# A reference's name that git refuses (git-check-ref-format(1)), or that cannot be there beside the branch `home`.
_NO_BRANCH = re.compile(r"[\0-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(/|$)|(^|/)\.|[./]$|^[-/]|^home/|^(HEAD|@)?$")
_Pair = Annotated[str, Meta(pattern=r"\A[0-9a-f]{40}(?: [0-9a-f]{40})?\Z")]
_Pack = tuple[Annotated[int, Meta(ge=0, le=_MOST_PACK_BYTES)], Annotated[str, Meta(pattern=r"\A(?:[0-9a-f]{64})?\Z")]]


class HomeCommit(Struct, frozen=True):
    """The last commit on the branch `home` of one sandbox, and the identity of the base that it holds.

    Without a commit the repository there is someone else's, and left alone.
    """

    commit: str
    base: str


def home_record(db: StateDb, target: Target) -> Record[HomeCommit]:
    """Return the record of a sandbox's."""
    cost = "the repository in the sandbox is compared as a whole once"
    return Record(db, "home", HomeCommit, cost, target.owner)


def recorded_home(db: StateDb, target: Target) -> str:
    """Return the last commit that syncd made in this sandbox; empty if there is none."""
    record = home_record(db, target).load()
    return record.commit if record is not None else ""


class RepositoryState(StrEnum):
    """The outcome of a request."""

    DONE = "done"
    LOST = "lost"  # there is none, or it is not as syncd left it, so that the request must name all paths
    FOREIGN = "foreign"  # someone else made it
    NO_GIT = "no-git"
    FAILED = "failed"


class FollowReport(Struct, frozen=True, forbid_unknown_fields=True):
    """The report of a repository that follows: `home` is the commit of what was sent; else `why` has the reason."""

    state: RepositoryState
    why: Text = ""
    home: Annotated[str, Meta(pattern=r"\A(?:[0-9a-f]{40})?\Z")] = ""


class SandboxCommits(Struct, frozen=True, forbid_unknown_fields=True):
    """The agent's commits as the sandbox reports them; `why` is empty if it does.

    `commits` are the ids, the oldest first, each with that of its first parent after a space, if it has one. `unlisted`
    counts the newer ones, which are too many to be read. `pack` are length and SHA-256 of the pack there. `branch` is
    the branch that is checked out, empty for a detached HEAD. `under_way` are operations such as a rebase, `branches`
    other branches with the number of their commits, which stay there.
    """

    state: RepositoryState
    why: Text = ""
    commits: Annotated[tuple[_Pair, ...], Meta(max_length=_MOST_COMMITS)] = ()
    unlisted: Count = 0
    pack: _Pack = (0, "")
    branch: Text = ""
    under_way: Annotated[tuple[Text, ...], Meta(max_length=10)] = ()
    stashes: Count = 0
    branches: Annotated[tuple[tuple[Text, Count], ...], Meta(max_length=1_000)] = ()
    more_branches: Count = 0


class AgentRepository:
    """The repository in one sandbox. `home_branch` returns the branch here; None: no repository is made there."""

    def __init__(
        self,
        home_branch: Callable[[], str | None],
        job_runner: JobRunner,
        target: Target,
        db: StateDb,
        waiter: Waiter,
    ) -> None:
        self._home_branch = home_branch
        self._job_runner = job_runner
        self._waiter = waiter
        self._stored = home_record(db, target)
        self._record = self._stored.load()
        self._followed: Manifest | None = None  # what the commit holds, as far as it is known
        self._unanswered: set[str] = set()  # paths that it may hold in yet another version
        self._failures = 0
        self._not_before_s = 0.0
        self.warnings: list[SyncWarning] = []

    @property
    def is_made(self) -> bool:
        """True if there is one of ours, as far as it is known."""
        return self._record is not None and bool(self._record.commit)

    def recall(self, base: Manifest, identity: str) -> None:
        """Note the base that an earlier process recorded: the commit may hold it already."""
        if self._record is not None and self._record.base == identity:
            self._followed = base

    def forget(self) -> None:
        """Forget the repository: the sandbox does not exist any more."""
        self._record, self._followed, self._unanswered = None, None, set()
        with contextlib.suppress(OSError):
            self._stored.remove()

    def follow(self, base: Manifest, identity: str) -> None:
        """Have the repository hold the base. What fails is a warning, and is tried again later.

        Raises `Superseded` for newer changes, and `Stop`.
        """
        if GIT in base and self._record is not None:
            self.forget()  # the workspace's own has its place
        if self._waiter.clock.monotonic_s() < self._not_before_s or (self._record is not None and not self.is_made):
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
        if base.files > MOST_FILES:
            self._warn(f"the workspace has more than {MOST_FILES:,} files, so no git repository is made in the sandbox")
            return
        try:
            with self._waiter.superseded_by(SupersededBy.ANY_CHANGE):
                report = self._asked(branch, base)
        except StepFailed as failure:
            self._failed(f"the git repository in the sandbox could not follow ({failure.message})")
        else:
            self._note(report, base, identity)

    def _versions(self, base: Manifest) -> dict[str, Entry | None]:
        """Return the versions that the commit may lack; if it is not known at all, those of all paths."""
        maybe = {path: _in_git(base.get(path)) for path in self._unanswered}
        return {**maybe, **versions_of(self._followed or Manifest(), base)}

    def _asked(self, branch: str, base: Manifest) -> FollowReport:
        if self._followed is not None and self._record is not None:
            report = self._run(branch, base, self._record.commit)
            if report.state is not RepositoryState.LOST:
                return report
        self._followed, self._unanswered = None, set()
        return self._run(branch, base, "")

    def _run(self, branch: str, base: Manifest, commit: str) -> FollowReport:
        """Run the program for what the commit may lack; none: for all. Raises `StepFailed`, `Superseded`, `Stop`."""
        now = datetime.fromtimestamp(self._waiter.clock.wall_s()).astimezone()
        timeout_s = _FOLLOW_S if commit else _MAKE_S
        versions = self._versions(base)
        columns = ((path, () if entry is None else (entry,)) for path, entry in versions.items())
        request = {
            **encoded_versions(columns),
            "whole": not commit,
            "home": commit,
            "branch": branch_there(branch),
            "exclude": _EXCLUDES,
            "message": f"workspace as of {now:%Y-%m-%d %H:%M:%S %z}\n",
            "person": f"syncd <syncd@localhost> {max(0, int(now.timestamp()))} {now:%z}",
            "within_s": _RUN_S,
        }
        if commit:
            self._unanswered.update(versions)
        job, output = self._output(_FOLLOW, repository_in_sandbox, request, timeout_s)
        return job.report(output, lambda text: msgspec.json.decode(text, type=FollowReport), _MOST_REPORT_BYTES)

    def _note(self, report: FollowReport, base: Manifest, identity: str) -> None:
        match report.state:
            case RepositoryState.DONE:
                self._failures, self.warnings, self._followed, self._unanswered = 0, [], base, set()
                self._save(HomeCommit(report.home, identity))
                _log.info("the repository in the sandbox is at %s", report.home[:10])
            case RepositoryState.FOREIGN:
                self.warnings = []
                self._save(HomeCommit("", ""))
                _log.info("the sandbox has a git repository of someone else's, which is left alone")
            case RepositoryState.NO_GIT:
                self._failed("the sandbox has no git, so no repository is made there")
            case _:
                why = one_line(report.why, 160)
                self._failed(f"the git repository in the sandbox could not follow ({why})")

    def _failed(self, what: str) -> None:
        self._failures += 1
        wait_s = backoff_limit_s(self._failures, _FIRST_WAIT_S, _LONGEST_WAIT_S)
        self._not_before_s = self._waiter.clock.monotonic_s() + wait_s
        self._warn(what)

    def _warn(self, what: str) -> None:
        if not self.warnings:
            _log.warning("%s", what)
        self.warnings = [SyncWarning("repository", what, _REMEDY)]

    def _save(self, record: HomeCommit) -> None:
        self._record = record
        with contextlib.suppress(OSError):  # the next process compares the whole once
            self._stored.save(record)

    def fetch_commits(self, home: str, folder: str, check: Callable[[], None]) -> tuple[SandboxCommits, str]:
        """Return the agent's commits after `home`, and the file with their pack; empty if there are no commits.

        `folder` is private, and holds nothing more at the end. Raises `StepFailed` if nobody could read them, or if the
        report is not to be trusted, `NotKeptHere`, `Stop`, and what `check` raises.
        """
        request = {
            "home": home,
            "most_commits": _MOST_COMMITS,
            "most_paths": MOST_PATHS,
            "most_bytes": MOST_BYTES,
            "within_s": _PACK_S,
        }
        job, output = self._output(_PACK, commits_in_sandbox, request, JOB_TIMEOUT_S, check)
        with self._job_runner.files(job, folder, _MOST_PACK_BYTES, check) as extract:
            found = job.report(output, commits_of, _MOST_REPORT_BYTES, extract)
            if not found.commits:
                return found, ""
            size_bytes, digest = found.pack
            pack = Entry(Kind.FILE, size_bytes=size_bytes, digest=bytes.fromhex(digest))
            path = extract({"copies/0": pack}).path("copies/0")
            if not path:
                raise job.invalid("the pack is another one")
            return found, path

    def _output(
        self,
        purpose: Purpose,
        program: ModuleType,
        request: dict[str, Any],
        timeout_s: float,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[RemoteJob, str]:
        """Run the program, and return its job and its output. Raises `StepFailed`, `Stop`, and what `check` raises."""
        job = new_job(purpose, program, request, (program_in_sandbox, git_in_sandbox))
        self._job_runner.upload(job)
        self._job_runner.start(job)
        return job, self._job_runner.output(job, check, timeout_s, _FIRST_POLL_S)


def commits_of(text: bytes) -> SandboxCommits:
    """Return the report, with names as this machine has them. Raises `ValueError`."""
    found = msgspec.json.decode(text, type=SandboxCommits)
    return replace(found, branches=tuple((from_remote(name), count) for name, count in found.branches))


def branch_there(name: str) -> str:
    """Return the name of the agent's branch: that of the branch here, or "main" where git would not have it there."""
    return "main" if _NO_BRANCH.search(name) else to_remote(name)


def versions_of(before: Manifest, now: Manifest) -> dict[str, Entry | None]:
    """Return the files and links that git sees as other than before; None: it is gone. Times do not count."""
    paths = (*replaced_entries(before, now), *removed_paths(before, now))
    versions = ((path, _in_git(before.get(path)), _in_git(now.get(path))) for path in paths)
    return {path: entry for path, old, entry in versions if _content(old) != _content(entry)}


def _in_git(entry: Entry | None) -> Entry | None:
    return None if entry is None or entry.kind is Kind.DIRECTORY else entry


def _content(entry: Entry | None) -> tuple[object, ...]:
    if entry is None:
        return ()
    return entry.kind, entry.mode & EXECUTABLE, entry.size_bytes, entry.target, arrived_digest(entry)
