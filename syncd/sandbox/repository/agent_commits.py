"""Reads which commits the agent made in the sandbox's repository by running a program there, and fetches their pack.

One execution of `commits_in_sandbox` does it. Its report is checked as any foreign text; what is in the pack, git says.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import replace

from syncd.remote.artifacts import ExpectedCopy, NotKeptHere
from syncd.remote.failure import ApiStep
from syncd.remote.remote_job import (
    FIRST_POLL_S,
    JOB_TIMEOUT_S,
    JobReport,
    JobRunner,
    Purpose,
    invalid_report,
    new_job,
    place_of,
)
from syncd.sandbox.look import from_remote
from syncd.sandbox.look_encoding import Count, InvalidReport, Text, converted, recoded
from syncd.sandbox.repository import commits_in_sandbox, git_in_sandbox

_PURPOSE = Purpose(ApiStep.EXECUTION, "the commits there")
# More are left to what is not committed.
_MOST_COMMITS = 1_000
MOST_PATHS = 100_000
MOST_BYTES = 2 << 30  # of all objects of a pack
_OVERHEAD_BYTES = 64 << 20  # of a pack beside its objects

_Id = "(?:[0-9a-f]{40}|[0-9a-f]{64})"
_Pair = Annotated[str, Meta(pattern=rf"\A{_Id}(?: {_Id})?\Z")]
_Pack = tuple[Annotated[int, Meta(ge=0)], Annotated[str, Meta(pattern=r"\A(?:[0-9a-f]{64})?\Z")]]


class Contents(Enum):
    """The contents of paths that a pack holds."""

    NONE = "names alone"
    SMALLEST = "the smallest, as many as it may hold"


class SandboxCommits(Struct, frozen=True, forbid_unknown_fields=True):
    """The agent's commits as the sandbox reports them.

    `commits` are the ids, the oldest first, each with that of its first parent after a space, if it has one. `unlisted`
    counts the newer ones, which are too many to be read. `pack` are length and SHA-256 of the pack there. `absence`
    says why there are no commits to read, `failure` why they cannot be read. `branch` is the branch that is checked
    out, empty for a detached HEAD. `under_way` are operations such as a rebase, `branches` other branches with the
    number of their commits, which stay there.
    """

    commits: Annotated[tuple[_Pair, ...], Meta(max_length=_MOST_COMMITS)] = ()
    unlisted: Count = 0
    pack: _Pack = (0, "")
    branch: Text = ""
    under_way: Annotated[tuple[Text, ...], Meta(max_length=10)] = ()
    stashes: Count = 0
    branches: Annotated[tuple[tuple[Text, Count], ...], Meta(max_length=1_000)] = ()
    more_branches: Count = 0
    absence: Text = ""
    failure: Text = ""


class AgentCommits:
    """The commits in one sandbox."""

    def __init__(self, job_runner: JobRunner) -> None:
        self._job_runner = job_runner

    def fetch(
        self, home: str, folder: str, contents: Contents, check: Callable[[], None]
    ) -> tuple[SandboxCommits, str]:
        """Return the commits after `home`, and the file with their pack; empty if there are no commits.

        `folder` is private, and holds nothing more at the end. Raises `StepFailed` if nobody could read them, or if the
        report is not to be trusted, `NotKeptHere`, `Stop`, and what `check` raises.
        """
        request = {
            "home": home,
            "most_commits": _MOST_COMMITS,
            "most_paths": MOST_PATHS,
            "most_bytes": MOST_BYTES,
            "with_contents": contents is Contents.SMALLEST,
        }
        job = new_job(_PURPOSE, commits_in_sandbox, "commits.json", request, (git_in_sandbox,))
        self._job_runner.upload(job)
        self._job_runner.start(job)
        output = self._job_runner.output(job, check, JOB_TIMEOUT_S, first_wait_s=FIRST_POLL_S)
        most_bytes = MOST_BYTES + _OVERHEAD_BYTES
        with self._job_runner.report(job, output, folder, most_bytes, check) as opened:
            try:
                found = sandbox_commits(opened.rows)
            except InvalidReport as failure:
                raise invalid_report(job, str(failure)) from None
            if found.pack[0] > most_bytes:
                raise invalid_report(job, "more was packed than was asked for")
            return found, _pack(opened, found, place_of(job, folder, 0)) if found.commits else ""


def _pack(opened: JobReport, found: SandboxCommits, path: str) -> str:
    length, digest = found.pack
    copies = opened.extract({0: ExpectedCopy(length, bytes.fromhex(digest), path)})
    if copies.not_kept:
        raise NotKeptHere(copies.not_kept, "see to room and rights in the cache folder")
    if not copies.right:
        raise invalid_report(opened.job, "the pack is another one")
    return path


def sandbox_commits(rows: list[list[Any]]) -> SandboxCommits:
    """Return the report with this row. Raises `InvalidReport`."""
    match rows:
        case [["done", dict(fields)]]:
            found = converted(fields, SandboxCommits)
        case _:
            raise InvalidReport("a row has another form")
    return replace(
        found,
        branch=recoded(found.branch, from_remote),
        branches=tuple((recoded(name, from_remote), count) for name, count in found.branches),
    )
