"""The record of the last commit that syncd made in the sandbox: the agent's commits begin there."""

from __future__ import annotations

import re

from syncd.core.durable_file import StateFile, Versioned
from syncd.remote.target import Target

_ID = re.compile("[0-9a-f]{40}(?:[0-9a-f]{24})?")


class HomeCommit(Versioned, frozen=True, kw_only=True):
    """The commit, by its id in the sandbox, and the digest of what it holds."""

    target: Target
    token: str
    commit: str
    digest: bytes


def home_commit_file(state_folder: str) -> StateFile[HomeCommit]:
    """Return the state file of the record."""
    return StateFile(state_folder, "home-commit", HomeCommit, "a repository is made in the sandbox once more")


def recorded_home(state_folder: str, target: Target) -> str:
    """Return the id of the last commit that syncd made in this sandbox; empty if none is known."""
    record = home_commit_file(state_folder).load()
    if record is None or not record.target.same_sandbox(target) or not _ID.fullmatch(record.commit):
        return ""
    return record.commit
