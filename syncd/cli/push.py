"""`syncd push`: syncs once, by the daemon if one runs, else by itself."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from syncd.cli.options import (
    config_option,
    config_path,
    configured,
    hinted,
    json_option,
    keeper,
    no_setup_option,
    of_sandbox,
    option_for,
    sandbox_option,
)
from syncd.cli.output import verbosity, verbosity_options
from syncd.cli.progress import ProgressDisplay
from syncd.cli.sync_now import sync_now
from syncd.core.directories import directories_for, holder
from syncd.core.settings import Config
from syncd.core.text import counted, few, for_sandbox, shown_path, size


@click.command("push")
@config_option
@click.option(
    "--force", is_flag=True, help="Read every file; even if nothing changed, and even if the workspace is nearly empty."
)
@sandbox_option
@no_setup_option
@json_option
@verbosity_options
def command(config_file: str | None, force: bool, sandbox: str | None, no_setup: bool, as_json: bool) -> None:
    """Sync once, now, and wait until the sandbox has it.

    \b
    syncd push
    syncd push --force        even if nothing changed, or nearly all is gone

    Where nothing has to be sent, the sandbox is asked if it still has what was sent, and filled if it was emptied. What
    changes while it is read is sent once more, twice at most; if it still changes, it is named, with exit code 75. With
    `sandbox.setup` it waits for the set-up too, as `syncd flush` does.
    """
    config = of_sandbox(configured(config_file), sandbox)
    result, is_first = push(config, {"force": force, "sandbox": sandbox, "no_setup": no_setup})
    if as_json or verbosity() >= 0:
        click.echo(json.dumps(result) if as_json else summaries(result))
    sys.stdout.flush()
    tell_agents_side(result)
    if is_first and not as_json and verbosity() >= 0:
        click.echo(next_step(option_for(config_path(config_file))), err=True)


def next_step(option: str) -> str:
    """The next step after a first sync; `option` is the ` --config FILE` that commands need."""
    return f"next: `{keeper(option)}` keeps it in sync from now on"


def tell_agents_side(result: Mapping[str, Any]) -> None:
    """Name on stderr the paths that stay as they are in the sandbox, or in each of several, and what was saved."""
    for row in result.get("sandboxes", ()) or (result,):
        name, named = row.get("name"), row.get("held", ())
        there = f" {name}" if name else ""
        apply = for_sandbox("`syncd apply`", name) if name else hinted("`syncd apply`")
        for path in named:
            click.echo(f"held: {shown_path(path)} stays in the sandbox{there} as it is: {apply} merges it", err=True)
        more = row.get("held_count", 0) - len(named)
        if more > 0:
            click.echo(f"held: {counted(more, 'more path')}{there and f' in{there}'}: {apply} merges them", err=True)
        if saved := ", ".join(few([*map(shown_path, row.get("saved", ()))], row.get("saved_count", 0))):
            lists = for_sandbox("`syncd saved`", name) if name else hinted("`syncd saved`")
            click.echo(f"saved: what the sandbox{there} had of {saved}: {lists} lists it", err=True)


def push(config: Config, request: Mapping[str, object]) -> tuple[dict[str, Any], bool]:
    """Sync once, to the sandbox that the request names or to each, and show the progress.

    The result, and if no earlier sync was known, and no daemon runs. Raises `SyncdError`.
    """
    with ProgressDisplay() as progress:
        result = sync_now(config, {"do": "push", **request}, progress)
    is_first = result["sync"] is not None and result.get("change") is None
    return result, is_first and holder(directories_for(config.workspace.path, os.environ).state) is None


def summaries(result: Mapping[str, Any]) -> str:
    """The result for people: a line, or one for each of several sandboxes."""
    rows = result.get("sandboxes", ())
    return "\n".join(f"{row['name']}: {summary(row)}" for row in rows) if rows else summary(result)


def summary(result: Mapping[str, Any]) -> str:
    """The result in one line, for people."""
    sync = result["sync"]
    if sync is None and result.get("held"):
        return "nothing was sent: the sandbox holds all but what is held"
    if sync is None:
        files = "the one file" if result["files"] == 1 else f"all {result['files']:,} files"
        return f"nothing to do: the sandbox holds {files}"
    words, sent = change_words(result.get("change") or {}), size(sync["archive_bytes"])
    # Of a first sync, and of one without changes, all was sent.
    what = f"{words}, {sent}, {sync['files']:,} in all" if words else f"{counted(sync['files'], 'file')}, {sent}"
    return f"synced {what}, in {sync['seconds']:.2f} s"


def change_words(change: Mapping[str, int]) -> str:
    """The numbers of changes: `6 new, 2 changed`; empty without any."""
    names = {"added": "new", "changed": "changed", "removed": "removed"}
    return ", ".join(f"{change[name]:,} {word}" for name, word in names.items() if change.get(name))
