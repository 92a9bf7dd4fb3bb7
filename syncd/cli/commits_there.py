"""The agent's commits for a command: reads them in the sandbox, and tells what stays there."""

from __future__ import annotations

import os

import click

from syncd.cli.agent_side import OpenSandbox
from syncd.cli.progress.display import ProgressDisplay
from syncd.core.formatting import counted
from syncd.core.text import one_line
from syncd.sandbox.repository.commits_report import SandboxCommits
from syncd.sandbox.repository.home_commit import recorded_home

_NO_HOME = SandboxCommits(absence="syncd made no repository in this sandbox")


def list_commits(opened: OpenSandbox) -> SandboxCommits:
    """Return the commits without contents; nobody is asked where syncd made no repository.

    Raises `StepFailed`, `Stop`.
    """
    return _read(opened, with_contents=False)


def fetch_commits(opened: OpenSandbox) -> SandboxCommits:
    """Return the commits with contents, else as `list_commits`. The copies go when the sandbox is closed."""
    return _read(opened, with_contents=True)


def _read(opened: OpenSandbox, *, with_contents: bool) -> SandboxCommits:
    home = recorded_home(opened.folders.state, opened.target)
    if not home:
        return _NO_HOME
    os.makedirs(opened.commits_folder, mode=0o700, exist_ok=True)
    agent_commits = opened.services.agent_commits
    read = agent_commits.fetch if with_contents else agent_commits.list
    with ProgressDisplay(silent_s=1.0) as progress:
        progress.doing("reading the commits in the sandbox")
        return read(home, opened.commits_folder, opened.interrupt.check)


def tell_rest(found: SandboxCommits) -> None:
    """Say on stderr what else the agent's repository has, which stays there."""
    for what in found.under_way:
        _tell(f"a {one_line(what, 20)} is under way in the sandbox")
    if not found.branch and (found.commits or found.under_way):
        _tell("no branch is checked out in the sandbox: these are the commits of its HEAD")
    if found.unlisted:
        _tell(f"{counted(found.unlisted, 'newer commit')} in the sandbox are too many to be read")
    if found.stashes:
        _tell("1 stash stays there" if found.stashes == 1 else f"{found.stashes:,} stashes stay there")
    for branch in found.branches:
        _tell(f"the branch {one_line(branch.name, 80)!r} with {counted(branch.commits, 'more commit')} stays there")
    if found.more_branches:
        _tell("more branches in the sandbox were not looked at")


def _tell(text: str) -> None:
    click.echo(text, err=True)
