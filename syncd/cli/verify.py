"""`syncd verify`: compares the sandbox's workspace, as it can be downloaded, with this one. Changes nothing."""

from __future__ import annotations

import json
from typing import Any

import click

from syncd.archive.verification import verify
from syncd.cli.options import (
    all_option,
    config_option,
    configured_for_each,
    json_option,
    sandbox_option,
    stoppable,
)
from syncd.cli.output import verbosity, verbosity_options
from syncd.cli.progress import ProgressDisplay
from syncd.core.choices import Deletions
from syncd.core.errors import ExitCode
from syncd.core.settings import Config
from syncd.core.text import shown_path


@click.command("verify")
@config_option
@sandbox_option
@all_option
@json_option
@verbosity_options
def command(config_file: str | None, sandbox: str | None, all_sandboxes: bool, as_json: bool) -> int:
    """Compare the workspace with the sandbox's, byte for byte.

    Ends with 0 if they are equal, with 1 if a path is missing there, different, or only there. A path that a rule here
    excludes counts as only there if the sandbox has it. The git repository that syncd keeps there does not.

    --json: equal, files (the number of paths compared), missing, different, only_there, and deleted_here, those of
    only_there that were sent once and deleted here. With --all: equal, and sandboxes, a list of these objects, each
    with the name of its sandbox.
    """
    configs = configured_for_each(config_file, sandbox, all_sandboxes)
    from syncd.cli.agent_side import for_each  # noqa: PLC0415 - `verify --help` needs none of it

    found: list[dict[str, Any]] = []
    failed = for_each(configs, lambda config: found.append(_verified(config, as_json=as_json, heading=all_sandboxes)))
    equal = failed is None and all(each["equal"] for each in found)
    if as_json:
        click.echo(json.dumps({"equal": equal, "sandboxes": found} if all_sandboxes else found[0]))
    if failed is not None:
        raise failed
    return ExitCode.DONE if equal else ExitCode.DIFFERENT


def _verified(config: Config, *, as_json: bool, heading: bool) -> dict[str, Any]:
    """Compare with one sandbox, print that for people, and return it."""
    from syncd.cli.downloading import leftovers_there, read_dump, repository_there  # noqa: PLC0415
    from syncd.cli.local_scan import scan_workspace  # noqa: PLC0415 - `verify --help` needs none of it

    with stoppable(), ProgressDisplay() as progress:
        progress.doing("scanning the workspace")
        local = scan_workspace(config)
        manifest, git = local.scan.manifest, repository_there(config)
        found = read_dump(
            config, progress, lambda packed, check: verify(config.workspace.path, manifest, packed, check, git)
        )
    lists = {"missing": found.missing, "different": found.different, "only_there": found.only_there}
    equal = not any(lists.values())
    leftovers = leftovers_there(config) if found.only_there else ()
    deleted_here = [path for path in found.only_there if path in leftovers]
    result = {"equal": equal, "files": len(manifest), **lists, "deleted_here": deleted_here}
    if heading:
        result = {"sandbox": config.sandbox_name, **result}
    if as_json:
        return result
    if heading:
        click.echo(f"{config.sandbox_name}:")
    for word, paths in lists.items():
        for path in paths:
            click.echo(f"{word.replace('_', ' '):10}  {shown_path(path)}")
    numbers = ", ".join(f"{len(paths):,} {word.replace('_', ' ')}" for word, paths in lists.items())
    if not equal or verbosity() >= 0:
        click.echo(numbers if not equal else f"equal: {len(manifest):,} paths are in the sandbox as they are here")
    if found.unnamed:
        click.echo(f"and {found.unnamed:,} more are only there")
    if deleted_here:
        click.echo(f"of what is only there, {_deleted(len(deleted_here), config.sandbox.deletions)}")
    if local.left_out_count:
        click.echo(f"not compared, as they are excluded: {local.left_out_count:,} (see `syncd ls --ignored`)", err=True)
    return result


def _deleted(count: int, deletions: Deletions) -> str:
    """The reason why deleted paths are still in the sandbox."""
    were = "path was" if count == 1 else "paths were"
    stay = "stays" if count == 1 else "stay"
    why = 'as sandbox.deletions = "keep"' if deletions is Deletions.KEEP else "to be removed, or changed there"
    return f"{count:,} {were} deleted here and {stay} there, {why}"
