"""`syncd log`: the agent's commits in the sandbox, as `syncd apply --branch` would bring them home."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.options import (
    all_option,
    config_option,
    configured_for_each,
    json_option,
    sandbox_option,
    stoppable,
)
from syncd.core.errors import TryLater
from syncd.core.settings import Config
from syncd.core.text import counted, one_line
from syncd.merge.git import identity_text, possible_seconds, subject_of

if TYPE_CHECKING:
    from syncd.merge.branch import SandboxCommit


@click.command("log")
@json_option
@sandbox_option
@all_option
@config_option
def command(config_file: str | None, sandbox: str | None, all_sandboxes: bool, as_json: bool) -> int:
    """List what the agent committed in the sandbox, the newest first.

    Of the branch that is checked out there, since syncd last put something there. `syncd apply --branch NAME` brings
    these commits home. Other branches and stashes are named on stderr; they stay there.

    --json: commits, each with id, author, email, at, subject, paths (their number) and sandbox (its name); stashes,
    their number; branches, the names of other branches with commits.
    """
    configs = configured_for_each(config_file, sandbox, all_sandboxes)
    from syncd.cli.agent_side import for_each  # noqa: PLC0415 - after the configuration is known

    found: list[dict[str, Any]] = []
    failed = for_each(configs, lambda config: found.append(_logged(config, as_json=as_json, heading=all_sandboxes)))
    if as_json:
        commits = [row for each in found for row in each["commits"]]
        branches = [name for each in found for name in each["branches"]]
        stashes = sum(each["stashes"] for each in found)
        click.echo(json.dumps({"commits": commits, "stashes": stashes, "branches": branches}))
    if failed is not None:
        raise failed
    return 0


def _logged(config: Config, *, as_json: bool, heading: bool) -> dict[str, Any]:
    """Print one sandbox's commits for people, and return them. Raises `SyncdError`, `StepFailed`."""
    from syncd.cli.agent_side import commits_there, open_sandbox, tell_rest  # noqa: PLC0415 - after the configuration is known
    from syncd.sandbox.repository.agent_repository import Contents, RepositoryState  # noqa: PLC0415

    with stoppable(), open_sandbox(config) as opened:
        found, commits = commits_there(opened, Contents.NONE)
    if found.state is RepositoryState.FAILED:
        reason = one_line(found.why, 160)
        raise TryLater(f"the commits in the sandbox cannot be read ({reason})", "`syncd diff` shows what was changed")
    rows = [{**_row(commit), "sandbox": config.sandbox_name} for commit in reversed(commits)]
    if heading:
        click.echo(f"{config.sandbox_name}:", err=as_json)
    if not as_json:
        width = max((len(one_line(row["author"], 30)) for row in rows), default=0)
        for row in rows:
            author, paths = one_line(row["author"], 30), counted(row["paths"], "path")
            click.echo(f"{row['id'][:10]}  {_local(row['at'])}  {author:{width}}  {row['subject']} ({paths})")
    if not rows and not found.unlisted:
        click.echo(f"no commits: {one_line(found.why or 'the agent made none', 160)}", err=True)
    tell_rest(found, commits)
    return {"commits": rows, "stashes": found.stashes, "branches": [name for name, _ in found.branches]}


def _row(commit: SandboxCommit) -> dict[str, Any]:
    return {
        "id": commit.id,
        "author": identity_text(commit.author),
        "email": identity_text(commit.email),
        "at": f"{datetime.fromtimestamp(possible_seconds(commit.seconds), UTC):%Y-%m-%dT%H:%M:%SZ}",
        "subject": subject_of(commit.message),
        "paths": len(commit.changes) + len(commit.refused),
    }


def _local(stamp: str) -> str:
    """Return a time in the zone of this machine."""
    try:
        return f"{datetime.fromisoformat(stamp).astimezone():%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError):
        return stamp[:16].replace("T", " ")
