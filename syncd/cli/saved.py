"""`syncd saved`: the agent's versions that were saved at home, with or without a running daemon."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from syncd.archive.extraction import require_new_or_empty
from syncd.cli.options import (
    CLOCK,
    configured,
    confirmed,
    interruptible,
    named,
    of_sandbox,
    refuse_elsewhere,
    refuse_workspace,
    sandbox_options,
    stoppable,
)
from syncd.cli.output import CommandGroup, aligned, tell_extracted
from syncd.core.choices import SAVED_BYTES, SAVED_DAYS
from syncd.core.clock import day_and_time, stamp
from syncd.core.directories import directories_for
from syncd.core.errors import ExitCode, NeedsPerson
from syncd.core.settings import MAIN
from syncd.core.text import counted, few, shown_path, size
from syncd.model.entry import Entry, Kind
from syncd.report.logs import LogFormat, set_up_logs
from syncd.sandbox.saved_versions import SavedVersion, SavedVersions
from syncd.store.state_db import StateDb

_HELP = f"""List the agent's saved versions, the newest first; or show, restore or drop one.

\b
syncd saved
syncd saved restore ID --here    merged into the workspace

They are kept for {SAVED_DAYS} days and in at most {SAVED_BYTES >> 30} GiB; the oldest go first.
\f

Before a sync overwrites or removes what was changed on both sides, and before a sandbox ends, the sandbox's version is
saved here.
"""


_id_argument = click.argument("version_id", metavar="ID")


@click.group("saved", invoke_without_command=True, cls=CommandGroup, help=_HELP)
@sandbox_options
@click.pass_context
def command(context: click.Context, /, **given: Any) -> None:
    # `syncd saved --config FILE show ID`: given before the subcommand, an option is that one's default.
    context.default_map = dict.fromkeys(command.commands, given)
    if context.invoked_subcommand is None:
        _list(**given)


def _list(*, config_file: str | None, sandbox: str | None, as_json: bool) -> None:
    versions = [each for each in _store(config_file).all() if sandbox in (None, each.sandbox_name)]
    if as_json:
        click.echo(json.dumps({"saved": [_row(version) for version in versions]}))
        return
    if not versions:
        click.echo("no version of the agent's is saved", err=True)
    for version in versions:
        print(*_heading(version), sep="\n")
        names = [_named(path, saved) for path, saved in version.paths.items()]
        for line in few(names, len(names), f": syncd saved show {version.id}"):
            print(f"    {line}")


@command.command("show")
@_id_argument
@sandbox_options
def show(version_id: str, config_file: str | None, sandbox: str | None, as_json: bool) -> None:
    """Show each path of a version, with its kind, mode and size."""
    store = _store(config_file)
    version = _found(store, version_id, sandbox)
    damaged = store.damaged(version)
    if as_json:
        entries = [_entry(path, saved, is_damaged=path in damaged) for path, saved in version.paths.items()]
        click.echo(json.dumps({**_row(version), "entries": entries}))
        return
    table = [
        (each.kind.name.lower(), f"{each.mode:03o}", size(each.size_bytes) if each.digest else "", _named(path, each))
        for path, each in version.paths.items()
    ]
    print(*_heading(version), *aligned(table), sep="\n")
    for path in damaged:
        click.echo(f"damaged on this disk, and cannot be restored: {shown_path(path)}", err=True)


@command.command("restore")
@_id_argument
@click.argument("destination", metavar="DEST", required=False, type=click.Path(), callback=named)
@click.option("--here", is_flag=True, help="Into the workspace, as `syncd apply` does: merged, or a conflict.")
@sandbox_options
def restore(  # noqa: PLR0917 - click passes each option
    version_id: str, destination: str | None, here: bool, config_file: str | None, sandbox: str | None, as_json: bool
) -> int:
    """Put the paths of a version into DEST, a new or an empty folder. Nothing is overwritten.

    \b
    syncd saved restore ID --here    merged into the workspace
    syncd saved restore ID ../its-version
    syncd apply --undo               takes back the merge

    The version stays saved. Links that lead out of DEST are named on stderr, and not restored. Exits with 1 if
    conflicts are left, or contents that were damaged on this disk.
    """
    if here == (destination is not None):
        raise click.UsageError("Name a folder, or --here.")
    if here:
        refuse_elsewhere(config_file)
    store = _store(config_file)
    version = _found(store, version_id, sandbox)
    if destination is None:
        from syncd.cli.apply import restore_here  # noqa: PLC0415 - for this way alone

        config = configured(config_file)
        # Of a sandbox that is configured no more the versions are compared with what main got.
        name = version.sandbox_name if version.sandbox_name in config.sandboxes else None
        return restore_here(of_sandbox(config, name), store, version, as_json=as_json)
    require_new_or_empty(destination)
    refuse_workspace(configured(config_file), destination)
    with stoppable("restored"), interruptible() as waiter:
        extracted = store.restore(version, destination, waiter.interrupt.check)
    tell_extracted("restored", extracted, destination, as_json=as_json, id=version.id)
    return ExitCode.DIFFERENT if extracted.left_out and store.damaged(version) else ExitCode.DONE


@command.command("drop")
@_id_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@sandbox_options
def drop(version_id: str, yes: bool, config_file: str | None, sandbox: str | None, as_json: bool) -> None:
    """Remove a version for good. On a terminal it asks.

    \b
    syncd saved drop ID
    """
    store = _store(config_file)
    version = store.find(version_id) if sandbox is None else _found(store, version_id, sandbox)  # it may be damaged
    if version is not None and not (yes or as_json) and sys.stdin.isatty() and sys.stdout.isatty():
        print(*_heading(version), sep="\n")
        with stoppable(), interruptible() as waiter:
            if not confirmed("Remove it for good?", waiter):
                print("nothing was removed")
                return
    if not store.drop(version_id):
        raise _unknown(version_id)
    if as_json:
        click.echo(json.dumps({"dropped": version_id}))
    else:
        print(f"dropped {version_id}")


def _store(config_file: str | None) -> SavedVersions:
    set_up_logs("warning", LogFormat.TEXT, {})  # a damaged version is named there
    return SavedVersions(StateDb(directories_for(configured(config_file).workspace.path, os.environ).state), CLOCK)


def _found(store: SavedVersions, version_id: str, sandbox: str | None) -> SavedVersion:
    version = store.find(version_id)
    if version is None or sandbox not in (None, version.sandbox_name):
        raise _unknown(version_id)
    return version


def _unknown(version_id: str) -> NeedsPerson:
    what = f"there is no saved version '{shown_path(version_id)}'"
    return NeedsPerson(what, "`syncd saved` lists those that there are")


def _row(version: SavedVersion) -> dict[str, Any]:
    return {
        "id": version.id,
        "at": stamp(version.at.timestamp()),
        "why": version.why,
        "sandbox": version.sandbox_name,
        "sandbox_id": version.sandbox_id,
        "paths": list(version.paths),
        "bytes": version.size_bytes,
    }


def _entry(path: str, saved: Entry, *, is_damaged: bool) -> dict[str, Any]:
    about = {"mode": f"{saved.mode:03o}", "bytes": saved.size_bytes, "mtime": saved.mtime_s}
    more = ({"target": saved.target} if saved.target else {}) | ({"damaged": True} if is_damaged else {})
    return {"path": path, "kind": saved.kind.name.lower(), **about, **more}


def _heading(version: SavedVersion) -> Iterator[str]:
    name = "" if version.sandbox_name == MAIN else f"{version.sandbox_name} "
    yield f"{version.id}  {version.why}  {counted(len(version.paths), 'path')}, {size(version.size_bytes)}"
    yield f"    {day_and_time(version.at.timestamp())}, sandbox {name}{shown_path(version.sandbox_id)}"


def _named(path: str, saved: Entry) -> str:
    """The path for people: a folder with a slash, a link with its target."""
    if saved.kind is Kind.DIRECTORY:
        return f"{shown_path(path)}/"
    return f"{shown_path(path)} -> {shown_path(saved.target)}" if saved.kind is Kind.SYMLINK else shown_path(path)
