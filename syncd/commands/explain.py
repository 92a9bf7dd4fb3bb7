"""`syncd explain`: whether a path is in the snapshot, and the rule that decides."""

from __future__ import annotations

import os

import click

from syncd.base.config import Config
from syncd.base.errors import WorkspaceError
from syncd.base.text import shown_path
from syncd.commands.options import config_option, configured


@click.command("explain")
@click.argument("path", type=click.Path())
@config_option
def command(path: str, config_file: str | None) -> None:
    """Say whether PATH is in the snapshot, and which rule decides, with its file and line."""
    config = configured(config_file)
    from syncd.effects.git_config import personal_excludes  # noqa: PLC0415
    from syncd.effects.inquiry import inquire  # noqa: PLC0415
    from syncd.process.wiring import selection_of  # noqa: PLC0415

    relative = _in_workspace(config, path)
    answer = inquire(config.workspace.path, selection_of(config), relative, personal_excludes(os.environ))
    name = shown_path(relative) or "the workspace itself"
    if answer.included:
        why = f"brought back by {answer.rule}" if answer.rule else answer.remark or "no rule speaks of it"
        click.echo(f"included: {name} ({why})")
    elif answer.at != relative:
        click.echo(f"left out: {name}, as its folder {shown_path(answer.at)}/ is, by {answer.rule}")
    else:
        click.echo(f"left out: {name}, by {answer.rule}" if answer.rule else f"left out: {name}, {answer.remark}")


def _in_workspace(config: Config, path: str) -> str:
    """The path relative to the workspace. Its last name is not followed, should it be a link."""
    absolute = os.path.abspath(path)
    real = os.path.join(os.path.realpath(os.path.dirname(absolute)), os.path.basename(absolute))
    workspace = config.workspace.path
    for candidate in (absolute, real, os.path.realpath(absolute)):
        if candidate == workspace:
            return ""
        if candidate.startswith(workspace + os.sep):
            return candidate[len(workspace) + 1 :]
    raise WorkspaceError(f"{shown_path(path)} is not in the workspace {workspace}", "name a path below it")
