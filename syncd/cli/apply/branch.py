"""`syncd apply --branch`: the sandbox's changes as commits on a new branch; the workspace stays as it is."""

from __future__ import annotations

import os
from datetime import datetime

import click

from syncd.cli.agent_side import AgentSide, agent_side, is_named, patterns_of, remote_version
from syncd.cli.apply.command import ApplyOptions, make_plan, print_lists
from syncd.cli.options import CLOCK
from syncd.core.errors import NeedsPerson
from syncd.core.settings import Config
from syncd.core.text import shown_path
from syncd.merge.branch import make_branch
from syncd.merge.git import need_git
from syncd.merge.git_objects import GitChange, GitVersion
from syncd.merge.merge_plan import MergeOutcome
from syncd.sandbox.look_request import RemoteKind
from syncd.scan.entry import Kind


def apply_to_branch(config: Config, options: ApplyOptions, name: str) -> int:
    """Make the branch, and say what is on it. Raises `SyncdError`."""
    git = need_git(os.environ)
    with agent_side(config, patterns_of(options.included)) as side:
        plan = make_plan(side, options)
        left = {planned.path: planned.reason for planned in plan.of(MergeOutcome.NEVER)}
        changes = [
            GitChange(path, None, remote_version(remote))
            for path, remote in side.work.changed.items()
            if path not in left and is_named(path, options.named) and _is_whole(side, path)
        ]
        sent = _sent(side)
        branch = make_branch(
            git,
            config.workspace.path,
            name,
            sent,
            [change for change in changes if change.after is not None or change.path in sent],
            left_out=lambda path: side.rules.leave_out(path, False),
            now=datetime.fromtimestamp(CLOCK.wall_s()).astimezone(),
            scratch=side.folders.spool,
        )
    skipped = {**left, **dict.fromkeys(branch.skipped, "it is in a submodule")}
    if options.as_json:
        taken = sorted(change.path for change in changes if change.path not in skipped)
        print_lists(taken=taken, never=sorted(skipped))
        return 0
    for path, reason in sorted(skipped.items()):
        click.echo(f"never     {shown_path(path)}: {reason}")
    commits = "1 new commit" if len(branch.commits) == 1 else f"{len(branch.commits)} new commits"
    click.echo(f"branch {branch.name}: {commits}; see `git log -p {branch.name}`")
    return 0


def _is_whole(side: AgentSide, path: str) -> bool:
    """True if what is there was fetched, or if nothing is there."""
    remote = side.work.changed[path]
    return remote.kind is RemoteKind.ABSENT or remote_version(remote) is not None


def _sent(side: AgentSide) -> dict[str, GitVersion]:
    """All files and links that were sent. Raises `NeedsPerson` if the bytes of one are gone."""
    local = side.writer.look(side.base)
    sent: dict[str, GitVersion] = {}
    for path, entry in side.base.items():
        if entry.kind is Kind.DIRECTORY:
            continue
        version = side.base_version(path, local[path])
        if version is None:
            raise NeedsPerson(
                f"what was sent as {shown_path(path)!r} is not known any more, as it was changed here since",
                "run `syncd push`, then try again",
            )
        sent[path] = version
    return sent
