"""The agent's commits for a command: reads them in the sandbox, and tells what stays there."""

from __future__ import annotations

import os

import click
from msgspec import Struct
from msgspec.structs import replace

from syncd.cli.agent_side import OpenSandbox
from syncd.cli.progress import ProgressDisplay
from syncd.core.formatting import counted
from syncd.core.text import one_line
from syncd.merge.commit_pack import SandboxCommit, UnreadablePack, read_pack
from syncd.merge.git import need_git
from syncd.sandbox.repository.agent_commits import Contents, SandboxCommits
from syncd.sandbox.repository.home_commit import recorded_home


class CommitsThere(Struct, frozen=True):
    """The sandbox's report, and the commits, the oldest first; none where it has an absence or a failure."""

    found: SandboxCommits
    commits: tuple[SandboxCommit, ...] = ()


def commits_there(opened: OpenSandbox, contents: Contents) -> CommitsThere:
    """Return the commits; nobody is asked where syncd made no repository.

    The copies of contents go when the sandbox is closed. Raises `SyncdError`, `StepFailed`, `Stop`.
    """
    home = recorded_home(opened.folders.state, opened.target)
    if not home:
        return CommitsThere(SandboxCommits(absence="syncd made no repository in this sandbox"))
    git, folder = need_git(os.environ), os.path.join(opened.scratch, "commits")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with ProgressDisplay(silent_s=1.0) as progress:
        progress.doing("reading the commits in the sandbox")
        found, pack = opened.services.agent_commits.fetch(home, folder, contents, opened.interrupt.check)
        if not pack:
            return CommitsThere(found)
        try:
            return CommitsThere(found, read_pack(git, found, pack, folder, contents))
        except UnreadablePack as reason:
            return CommitsThere(replace(found, failure=str(reason), unlisted=0))


def tell_rest(there: CommitsThere) -> None:
    """Say on stderr what else the agent's repository has, which stays there."""
    found = there.found
    for what in found.under_way:
        _tell(f"a {one_line(what, 20)} is under way in the sandbox")
    if not found.branch and (there.commits or found.under_way):
        _tell("no branch is checked out in the sandbox: these are the commits of its HEAD")
    if found.unlisted:
        _tell(f"{counted(found.unlisted, 'newer commit')} in the sandbox are too many to be read")
    if found.stashes:
        _tell("1 stash stays there" if found.stashes == 1 else f"{found.stashes:,} stashes stay there")
    for name, commits in found.branches:
        _tell(f"the branch {one_line(name, 80)!r} with {counted(commits, 'more commit')} stays there")
    if found.more_branches:
        _tell("more branches in the sandbox were not looked at")


def _tell(text: str) -> None:
    click.echo(text, err=True)
