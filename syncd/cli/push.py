"""`syncd push`: syncs once, by the daemon if one runs, else by itself."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any

import click

from syncd.cli.daemon_client import ask_daemon, ask_or_do
from syncd.cli.options import (
    CLOCK,
    config_option,
    config_path,
    configured,
    json_option,
    keeper,
    of_sandbox,
    option_for,
    sandbox_option,
)
from syncd.cli.output import log_level, print_path, verbosity, verbosity_options
from syncd.cli.progress import ProgressDisplay
from syncd.core.directories import directories_for
from syncd.core.errors import Stop, TryLater
from syncd.core.settings import Config
from syncd.core.text import MOST_NAMED, counted, shown_path, size
from syncd.report.logs import LogFormat, set_up_logs

_COLUMNS = 100


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

    Up to two more syncs follow while files change as they are read; if one still does, it is named, with exit code 75.
    """
    config = of_sandbox(configured(config_file), sandbox)
    if dry_run:
        if force:
            raise click.UsageError("--dry-run goes without --force.")
        _show_plan(config, as_json=as_json)
        return
    result, is_first = push(config, force, sandbox)
    if as_json or verbosity() >= 0:
        click.echo(json.dumps(result) if as_json else summaries(result))
    sys.stdout.flush()
    tell_held(result)
    tell_paths(config, result)
    if is_first and not as_json and verbosity() >= 0:
        click.echo(next_step(option_for(config_path(config_file))), err=True)


def next_step(option: str) -> str:
    """The next step after a first sync; `option` is the ` --config FILE` that commands need."""
    return f"next: `{keeper(option)}` keeps it in sync from now on"


def tell_paths(config: Config, result: Mapping[str, Any]) -> None:
    """Name on stderr, with -v, the paths that left in the sync that had this result, as the history has them."""
    if verbosity() <= 0 or result["sync"] is None:
        return
    from syncd.cli.history import path_lines  # noqa: PLC0415 - for who asks
    from syncd.report.history import HistoryStore  # noqa: PLC0415

    with suppress(OSError):
        records, _ = HistoryStore(directories_for(config.workspace.path, os.environ).state).read()
        sending = [record for record in records if record.sent]
        for line in path_lines(sending[-1], _COLUMNS) if sending else ():
            click.echo(click.unstyle(line), err=True)


def tell_held(result: Mapping[str, Any]) -> None:
    """Name on stderr the paths that stay as they are in the sandbox."""
    for row in result.get("sandboxes", ())[1:]:  # the first one's are those of the result itself
        tell_held(row)
    named = result.get("held", ())
    for path in named:
        click.echo(f"held: {shown_path(path)} was changed here and in the sandbox: `syncd apply` merges it", err=True)
    more = result.get("held_count", 0) - len(named)
    if more > 0:
        click.echo(f"held: {counted(more, 'more path')}: `syncd apply` merges them", err=True)


def push(config: Config, force: bool, sandbox: str | None = None) -> tuple[dict[str, Any], bool]:
    """Sync once, to the sandbox of this name or to each, and show the progress.

    The result, and if no earlier sync was known, and no daemon runs.

    Raises `SyncdError`; that of an interrupt says what state it leaves.
    """
    with ProgressDisplay() as progress:

        def alone() -> tuple[dict[str, Any], bool]:
            from syncd.archive.snapshotter import SyncMode  # noqa: PLC0415
            from syncd.cli.own_loop import sync_alone  # noqa: PLC0415 - where no daemon runs

            set_up_logs(log_level("critical"), LogFormat.TEXT, {})  # the command tells what failed
            result = sync_alone(config, progress, SyncMode.FORCED if force else SyncMode.CHANGED, sandbox=sandbox)
            return result, result["sync"] is not None and result["change"] is None

        request = {"do": "push", "force": force, "sandbox": sandbox}
        try:
            done = ask_or_do(lambda: ask_daemon(config, request, display=progress), alone)
        except KeyboardInterrupt:
            raise TryLater("stopped waiting; the daemon goes on", "see `syncd status`") from None
        except Stop:
            raise _stopped(progress.doing_now) from None
        return done if isinstance(done, tuple) else (done, False)


def _stopped(doing: str) -> TryLater:
    """The error of an interrupt. An interrupted upload changes nothing: only initialize changes the sandbox."""
    if doing.startswith("initializing"):
        return TryLater(f"stopped while {doing}, which may be done all the same", "`syncd push` makes sure")
    return TryLater(f"stopped while {doing}; the sandbox is unchanged", "`syncd push` sends it")


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
    what = _changes(result.get("change"), sync["files"])
    return f"synced {what}, {size(sync['archive_bytes'])}, in {sync['seconds']:.2f} s"


def _changes(change: dict[str, int] | None, files: int) -> str:
    """The changes since the last sync, and the files in all; these alone for a first sync, and one without changes."""
    words = change_words(change) if change else ""
    return f"{words} ({files:,} in all)" if words else counted(files, "file")


def change_words(change: Mapping[str, int]) -> str:
    """The numbers of changes: `6 new, 2 changed`; empty without any."""
    names = {"added": "new", "changed": "changed", "removed": "removed"}
    return ", ".join(f"{change[name]:,} {word}" for name, word in names.items() if change[name])


def _show_plan(config: Config, *, as_json: bool) -> None:
    """Print what a push would send now, a path a line, and the sum, by the workspace and what is known of the sandbox.

    Asks no server, and changes nothing. Raises `SyncdError`.
    """
    from syncd.cli.local_scan import scan_workspace  # noqa: PLC0415 - a push by the daemon needs none of these
    from syncd.daemon.build import places_of, reader_of, target_of  # noqa: PLC0415
    from syncd.model.entry import Kind  # noqa: PLC0415
    from syncd.model.manifest import Manifest, carry_over_digests, difference  # noqa: PLC0415
    from syncd.sandbox.sandbox_state import SandboxState  # noqa: PLC0415
    from syncd.store.state_db import StateDb  # noqa: PLC0415

    with ProgressDisplay(silent_s=0.5) as progress:
        progress.doing("scanning the workspace")
        scanned = scan_workspace(config).scan.manifest
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
    if as_json:
        click.echo(json.dumps({**changes, "files": manifest.files, "bytes": amount, "held": sorted(held)}))
        return
    for sign, paths in zip("+~-", changes.values(), strict=True):
        for path in paths:
            is_directory = path in manifest and manifest[path].kind is Kind.DIRECTORY
            print_path(path, "/" if is_directory else "", before=f"{sign} ")
    words = change_words({name: len(paths) for name, paths in changes.items()})
    if words:
        what = counted(manifest.files, "file") if base is None else f"{words} ({manifest.files:,} in all)"
        click.echo(f"would send {what}, {size(amount)} before compression")
    else:
        click.echo(f"nothing to send: the sandbox holds what is here ({counted(manifest.files, 'file')})")
    tell_held({"held": sorted(held)[:MOST_NAMED], "held_count": len(held)})
