"""Keeps a git repository in the sandbox that holds what was sent, and fetches the commits that the agent makes there.

One execution makes the repository, one follows what arrived since the last one, and one reads the agent's commits.
Nothing of it is part of a comparison or a removal. Where the repository cannot follow, that is one warning, and no sync
waits for it: newer changes end the wait.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.choices import COMMITTER
from syncd.core.errors import SyncWarning
from syncd.core.text import one_line
from syncd.core.waiter import Waiter, Work
from syncd.model.entry import ABSENT, Entry, Kind, same
from syncd.model.manifest import Manifest, changed_paths
from syncd.remote.failure import ApiStep, NextTry, StepFailed
from syncd.remote.target import Target
from syncd.sandbox.executions import TIMEOUT_S, Executions, Purpose
from syncd.sandbox.protocol import (
    MOST_COMMITS,
    MOST_COMMITTED_BYTES,
    MOST_COMMITTED_PATHS,
    REPOSITORY_BOUNDS,
    CommitReport,
    RepositoryState,
    SandboxCommits,
    items_of,
    to_remote,
    told,
)
from syncd.selection.ignore_files import GIT
from syncd.selection.selection import DEFAULTS, SECRETS
from syncd.store.state_db import Record, StateDb

_log = logging.getLogger("syncd.repository")
_FOLLOW = Purpose(ApiStep.EXECUTION, "the git repository there")
_LOG = Purpose(ApiStep.EXECUTION, "the commits there")
# A sync that a command waits for waits so long for the repository too.
_FOLLOW_TIMEOUT_S = 15.0
_MAKE_TIMEOUT_S = 120.0
# A run that nobody waits for any more goes on: the next one finds what it did.
_RUN_S = 600
_LOG_S = 90
# It runs git a dozen times; a poll that comes too early would cost one request more.
_FIRST_POLL_S = 0.4
# The list of all paths stays an upload of a few MB.
MOST_FILES = 200_000
# For the `info/exclude` there, so that what tools make there does not count as the agent's work. The workspace's
# `.gitignore` files are there anyway; the text of other rules stays at home.
_EXCLUDES = "".join(f"{pattern}\n" for pattern in (*DEFAULTS, *SECRETS))
_REMEDY = 'see that git works there, or set workspace.git = "none" with `syncd config edit`'
# A reference's name that git refuses (git-check-ref-format(1)).
_NO_BRANCH = re.compile(r"[\0-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(/|$)|(^|/)\.|[./]$|^[-/]|^(HEAD|@)?$")


class HomeCommit(Struct, frozen=True):
    """The last commit of what was sent to one sandbox, and the revision of the base that it holds.

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


class AgentRepository:
    """The repository in one sandbox. `home_branch` returns the branch here; None: no repository is made there."""

    def __init__(
        self,
        home_branch: Callable[[], str | None],
        executions: Executions,
        target: Target,
        db: StateDb,
        waiter: Waiter,
    ) -> None:
        self._home_branch = home_branch
        self._executions = executions
        self._waiter = waiter
        self._stored = home_record(db, target)
        self._record = self._stored.load()
        self._followed: Manifest | None = None  # what the commit holds, as far as it is known
        self._unanswered: set[str] = set()  # paths that it may hold in yet another version
        self._next_try = NextTry()  # a git that is installed later is found that late
        self.warnings: list[SyncWarning] = []

    @property
    def is_made(self) -> bool:
        """True if there is one of ours, as far as it is known."""
        return self._record is not None and bool(self._record.commit)

    def recall(self, base: Manifest, revision: str) -> None:
        """Note the base that an earlier process recorded: the commit may hold it already."""
        if self._record is not None and self._record.base == revision:
            self._followed = base

    def forget(self) -> None:
        """Forget the repository: the sandbox does not exist any more."""
        self._record, self._followed, self._unanswered = None, None, set()
        with contextlib.suppress(OSError):
            self._stored.remove()

    def follow(self, base: Manifest, revision: str) -> None:
        """Have the repository hold the base. What fails is a warning, and is tried again later.

        Raises `Superseded` for newer changes, and `Stop`.
        """
        if GIT in base and self._record is not None:
            self.forget()  # the workspace's own has its place
        is_early = self._next_try.is_waiting(self._waiter.clock.monotonic_s())
        if is_early or (self._record is not None and not self.is_made):
            return
        if self._record is not None and self._followed is not None and not self._versions(base):
            self._followed, self.warnings = base, []
            if self._record.base != revision:  # or else the next process would compare all
                self._save(replace(self._record, base=revision))
            return
        branch = self._home_branch()
        if branch is None:
            self.warnings = []
            return
        if base.files > MOST_FILES:
            self._warn(f"the workspace has more than {MOST_FILES:,} files, so no git repository is made in the sandbox")
            return
        try:
            with self._waiter.doing(Work.READ):
                report = self._asked(branch, base)
        except StepFailed as failure:
            self._failed(f"the git repository in the sandbox could not follow ({failure.message})")
        else:
            self._note(report, base, revision)

    def _versions(self, base: Manifest) -> dict[str, Entry]:
        """Return the versions that the commit may lack; if it is not known at all, those of all paths."""
        maybe = {path: _in_git(base, path) for path in self._unanswered}
        return {**maybe, **versions_of(self._followed or Manifest(), base)}

    def _asked(self, branch: str, base: Manifest) -> CommitReport:
        if self._followed is not None and self._record is not None:
            report = self._run(branch, base, self._record.commit)
            if report.state is not RepositoryState.LOST:
                return report
        self._followed, self._unanswered = None, set()
        return self._run(branch, base, "")

    def _run(self, branch: str, base: Manifest, commit: str) -> CommitReport:
        """Run the program for what the commit may lack; none: for all. Raises `StepFailed`, `Superseded`, `Stop`."""
        now = datetime.fromtimestamp(self._waiter.clock.wall_s()).astimezone()
        timeout_s = _FOLLOW_TIMEOUT_S if commit else _MAKE_TIMEOUT_S
        versions = self._versions(base)
        request = {
            **items_of(("c", path, (entry,)) for path, entry in versions.items()),
            "whole": not commit,
            "home": commit,
            "branch": branch_there(branch),
            "exclude": _EXCLUDES,
            "message": f"workspace as of {now:%Y-%m-%d %H:%M:%S %z}\n",
            "person": f"{COMMITTER} {max(0, int(now.timestamp()))} {now:%z}",
            "within_s": _RUN_S,
        }
        if commit:
            self._unanswered.update(versions)
        running = self._executions.begin(_FOLLOW, {"commit": request}, REPOSITORY_BOUNDS)
        answer = self._executions.answer(
            running, lambda report: told(report.commit), timeout_s=timeout_s, first_wait_s=_FIRST_POLL_S
        )
        with answer as (found, _):
            return found

    def _note(self, report: CommitReport, base: Manifest, revision: str) -> None:
        match report.state:
            case RepositoryState.DONE:
                self._next_try.clear()
                self.warnings, self._followed, self._unanswered = [], base, set()
                self._save(HomeCommit(report.home, revision))
                _log.info("the repository in the sandbox is at %s", report.home[:10])
            case RepositoryState.FOREIGN:
                self.warnings = []
                self._save(HomeCommit("", ""))
                _log.info("the sandbox has a git repository of someone else's, which is left alone")
            case _:
                why = one_line(report.why, 160)
                self._failed(f"the git repository in the sandbox could not follow ({why})")

    def _failed(self, what: str) -> None:
        self._next_try.failed(self._waiter.clock.monotonic_s())
        self._warn(what)

    def _warn(self, what: str) -> None:
        if not self.warnings:
            _log.warning("%s", what)
        self.warnings = [SyncWarning("repository", what, _REMEDY)]

    def _save(self, record: HomeCommit) -> None:
        self._record = record
        with contextlib.suppress(OSError):  # the next process compares the whole once
            self._stored.save(record)

    def fetch_commits(self, home: str, folder: str) -> tuple[SandboxCommits, str]:
        """Return the agent's commits after `home`, and the file with them; empty if there are none.

        `folder` is private, and holds nothing more at the end. Raises `StepFailed` if nobody could read them, or if the
        report is not to be trusted, `NotKeptHere`, `Stop`.
        """
        request = {
            "home": home,
            "most_commits": MOST_COMMITS,
            "most_paths": MOST_COMMITTED_PATHS,
            "most_bytes": MOST_COMMITTED_BYTES,
            "within_s": _LOG_S,
        }
        running = self._executions.begin(_LOG, {"log": request}, REPOSITORY_BOUNDS)
        answer = self._executions.answer(
            running, lambda report: told(report.log), folder, fetch_s=TIMEOUT_S, first_wait_s=_FIRST_POLL_S
        )
        with answer as (found, extract):
            if not found.commits:
                return found, ""
            size_bytes, digest = found.file
            file = Entry(Kind.FILE, size_bytes=size_bytes, digest=bytes.fromhex(digest))
            path = extract({"copies/0": file}).path("copies/0")
            if not path:
                raise _LOG.invalid("the file with them is another one")
            return found, path


def branch_there(name: str) -> str:
    """Return the name of the agent's branch: that of the branch here, or "main" where git would not have it there."""
    return "main" if _NO_BRANCH.search(name) else to_remote(name)


def versions_of(before: Manifest, now: Manifest) -> dict[str, Entry]:
    """Return the files and links that git sees as other than before; ABSENT: it is gone. Times do not count."""
    versions = ((path, _in_git(before, path), _in_git(now, path)) for path in changed_paths(before, now))
    return {path: entry for path, old, entry in versions if not same(old, entry)}


def _in_git(manifest: Manifest, path: str) -> Entry:
    entry = manifest.get(path, ABSENT)
    return ABSENT if entry.kind is Kind.DIRECTORY else entry
