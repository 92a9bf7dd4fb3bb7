"""The record of the last commit that syncd made in the sandbox's repository."""

from __future__ import annotations

from syncd.core.durable_file import StateFile, Versioned
from syncd.remote.target import Target


class HomeCommit(Versioned, frozen=True, kw_only=True):
    """The last commit on the branch `home` of one sandbox, and the identity of the base that it holds.

    Without a commit the repository there is someone else's, and left alone.
    """

    target: Target
    commit: str
    base: str


def home_commit_file(state_folder: str) -> StateFile[HomeCommit]:
    """Return the record's file."""
    return StateFile(
        state_folder, "home-commit", HomeCommit, "the repository in the sandbox is compared as a whole once"
    )


def recorded_home(state_folder: str, target: Target) -> str:
    """Return the last commit that syncd made in this sandbox; empty if there is none."""
    record = home_commit_file(state_folder).load()
    return record.commit if record is not None and record.target.same_sandbox(target) else ""
