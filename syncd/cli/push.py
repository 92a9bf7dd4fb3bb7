"""`syncd push`: syncs once, by the daemon if one runs, else by itself."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import click

from syncd.cli.daemon_client import sync_now
from syncd.cli.options import (
    CLOCK,
    config_option,
    config_path,
    configured,
    hinted,
    json_option,
    keeper,
    of_sandbox,
    option_for,
    sandbox_option,
)
from syncd.cli.output import print_path, verbosity, verbosity_options
from syncd.cli.progress import ProgressDisplay
from syncd.core.directories import directories_for, holder
from syncd.core.settings import Config
from syncd.core.text import MOST_NAMED, counted, few, for_sandbox, shown_path, size


@click.command("push")
@config_option
@click.option(
    "--force", is_flag=True, help="Read every file; even if nothing changed, and even if the workspace is nearly empty."
)
@click.option("--dry-run", is_flag=True, help="Show what would be sent: + new, ~ changed, - removed. Asks no server.")
@sandbox_option
@json_option
@verbosity_options
def command(config_file: str | None, force: bool, dry_run: bool, sandbox: str | None, as_json: bool) -> None:
    """Sync once, now, and wait until the sandbox has it; each one, where the workspace has several.

    Where nothing has to be sent, the sandbox is asked if it still has what was sent, and filled if it was emptied.

    Up to two more syncs follow while files change as they are read; if one still does, it is named, with exit code 75.
    """
    config = of_sandbox(configured(config_file), sandbox)
    if dry_run:
        if force:
            raise click.UsageError("--dry-run goes without --force.")
        names = [*config.sandboxes] if sandbox is None else [sandbox]
        _show_plans([config.for_sandbox(name) for name in names], as_json=as_json)
        return
    result, is_first = push(config, force, sandbox)
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


def push(config: Config, force: bool, sandbox: str | None = None) -> tuple[dict[str, Any], bool]:
    """Sync once, to the sandbox of this name or to each, and show the progress.

    The result, and if no earlier sync was known, and no daemon runs. Raises `SyncdError`.
    """
    with ProgressDisplay() as progress:
        result = sync_now(config, {"do": "push", "force": force, "sandbox": sandbox}, progress)
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


def _show_plans(configs: list[Config], *, as_json: bool) -> None:
    """Print what a push would send now, a path a line, and the sum, by the workspace and what is known of each sandbox.

    Asks no server, and changes nothing. Raises `SyncdError`.
    """
    from syncd.cli.local_scan import scan_workspace  # noqa: PLC0415 - a push by the daemon needs none of these
    from syncd.daemon.build import places_of, reader_of, target_of  # noqa: PLC0415
    from syncd.model.entry import Kind  # noqa: PLC0415
    from syncd.model.manifest import Manifest, carry_over_digests, difference  # noqa: PLC0415
    from syncd.sandbox.sandbox_state import SandboxState  # noqa: PLC0415
    from syncd.scan.exclusions import check_size  # noqa: PLC0415
    from syncd.store.state_db import StateDb  # noqa: PLC0415

    with ProgressDisplay(silent_s=0.5) as progress:
        progress.doing("scanning the workspace")
        scanned = scan_workspace(configs[0]).scan.manifest
    check_size(scanned, configs[0].sync.max_snapshot_mib)
    rows: list[dict[str, Any]] = []
    for config in configs:
        with closing(StateDb(places_of(config, os.environ).state)) as db:
            state = SandboxState(db, target_of(config, os.environ))
            base, held = state.base, frozenset(state.seen.held)
        manifest = carry_over_digests(base or Manifest(), scanned)
        found = difference(base or Manifest(), manifest)
        if found.uncertain:
            manifest.put(reader_of(config, CLOCK, os.environ).digests(found.uncertain))
            found = difference(base or Manifest(), manifest)
        lists = {"added": found.added, "changed": [*found.changed, *found.uncertain], "removed": found.removed}
        changes = {name: sorted(path for path in paths if path not in held) for name, paths in lists.items()}
        sent = [manifest[path] for name in ("added", "changed") for path in changes[name]]
        amount = sum(entry.size_bytes for entry in sent if entry.kind is Kind.FILE)
        rows.append({**changes, "files": manifest.files, "bytes": amount, "held": sorted(held)})
        if as_json:
            continue
        for sign, paths in zip("+~-", changes.values(), strict=True):
            for path in paths:
                is_directory = path in manifest and manifest[path].kind is Kind.DIRECTORY
                print_path(path, "/" if is_directory else "", before=f"{sign} ")
        words = change_words({name: len(paths) for name, paths in changes.items()})
        to = f"{config.sandbox_name}: " if len(configs) > 1 else ""
        if words:
            what = counted(manifest.files, "file") if base is None else f"{words} ({manifest.files:,} in all)"
            click.echo(f"{to}would send {what}, {size(amount)} before compression")
        else:
            click.echo(f"{to}nothing to send: the sandbox holds what is here ({counted(manifest.files, 'file')})")
        name = {"name": config.sandbox_name} if to else {}
        tell_agents_side({"held": sorted(held)[:MOST_NAMED], "held_count": len(held), **name})
    if as_json:
        each = [{"name": config.sandbox_name, **row} for config, row in zip(configs, rows, strict=True)]
        click.echo(json.dumps(rows[0] if len(rows) == 1 else {**rows[0], "sandboxes": each}))
