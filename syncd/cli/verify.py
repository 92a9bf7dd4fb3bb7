"""`syncd verify`: compares the sandbox's workspace, as it can be downloaded, with this one. Changes nothing."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from syncd.cli.options import config_option, configured, json_option
from syncd.core.choices import Deletions
from syncd.core.errors import ExitCode, Stop, TryLater
from syncd.core.settings import Config
from syncd.core.text import shown_path

if TYPE_CHECKING:
    from syncd.archive.verification import Comparison


@click.command("verify")
@config_option
@json_option
def command(config_file: str | None, as_json: bool) -> int:
    """Compare the workspace with the sandbox's, byte for byte.

    Ends with 0 if they are equal, with 1 if a path is missing there, different, or only there. A path that a rule here
    leaves out counts as only there if the sandbox has it. The git repository that syncd keeps there does not.
    """
    config = configured(config_file)
    try:
        compared = _compared(config)
    except (Stop, KeyboardInterrupt):
        raise TryLater("stopped; nothing was changed", "the same command begins anew") from None
    found = compared.found
    lists = {"missing": found.missing, "different": found.different, "only_there": found.only_there}
    equal = not any(lists.values())
    leftovers = _leftovers(config) if found.only_there else set()
    deleted_here = [path for path in found.only_there if path in leftovers]
    if as_json:
        click.echo(json.dumps({"equal": equal, "files": compared.paths, **lists, "deleted_here": deleted_here}))
        return ExitCode.DONE if equal else ExitCode.DIFFERENT
    for word, paths in lists.items():
        for path in paths:
            click.echo(f"{word.replace('_', ' '):10}  {shown_path(path)}")
    click.echo(_summary(lists) if not equal else f"equal: {compared.paths:,} paths are in the sandbox as they are here")
    if found.unnamed:
        click.echo(f"and {found.unnamed:,} more are only there")
    if deleted_here:
        click.echo(f"of what is only there, {_deleted(len(deleted_here), config.sandbox.deletions)}")
    if compared.left_out:
        click.echo(f"not compared, as they stay home: {compared.left_out:,} (see `syncd ls --ignored`)", err=True)
    return ExitCode.DONE if equal else ExitCode.DIFFERENT


class _Compared(Struct, frozen=True):
    found: Comparison
    paths: int
    left_out: int


def _compared(config: Config) -> _Compared:
    from syncd.archive.verification import verify  # noqa: PLC0415
    from syncd.cli.downloading import read_dump, repository_there  # noqa: PLC0415 - `verify --help` needs none of it
    from syncd.cli.local_scan import scan_workspace  # noqa: PLC0415
    from syncd.cli.progress import ProgressDisplay  # noqa: PLC0415

    with ProgressDisplay() as progress:
        progress.doing("scanning the workspace")
        local = scan_workspace(config)
        manifest, git = local.scan.manifest, repository_there(config)
        found = read_dump(
            config, progress, lambda packed, check: verify(config.workspace.path, manifest, packed, check, git)
        )
    return _Compared(found, len(manifest), local.left_out_count)


def _leftovers(config: Config) -> set[str]:
    """The paths that were sent once and deleted here since, as far as known."""
    from syncd.daemon.build import places_of, target_of  # noqa: PLC0415
    from syncd.sandbox.sandbox_state import recorded_leftovers  # noqa: PLC0415 - where something is only there
    from syncd.store.state_db import StateDb  # noqa: PLC0415

    with closing(StateDb(places_of(config, os.environ).state)) as db:
        return set(recorded_leftovers(db, target_of(config, os.environ)).entries)


def _deleted(count: int, deletions: Deletions) -> str:
    """The reason why deleted paths are still in the sandbox."""
    were = "path was" if count == 1 else "paths were"
    stay = "stays" if count == 1 else "stay"
    why = 'as sandbox.deletions = "keep"' if deletions is Deletions.KEEP else "to be removed, or changed there"
    return f"{count:,} {were} deleted here and {stay} there, {why}"


def _summary(lists: dict[str, list[str]]) -> str:
    return ", ".join(f"{len(paths):,} {word.replace('_', ' ')}" for word, paths in lists.items())
