"""`syncd diff`: what was changed in the sandbox since syncd put it there, as a patch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.options import config_option, configured, is_named, json_option, named_paths, stoppable
from syncd.cli.output import may_colour, paged, print_path
from syncd.core.errors import ExitCode
from syncd.core.text import shown_path
from syncd.merge.git import is_binary, is_version, need_git, object_format_around
from syncd.merge.patch import COLOURED, PLAIN, for_terminal, write_patch, write_table
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry, same

if TYPE_CHECKING:
    from syncd.cli.agent_side import AgentSide


@click.command("diff")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path())
@click.option("--stat", "form", flag_value="stat", help="How many lines each path adds and removes.")
@click.option("--name-only", "form", flag_value="names", help="The paths alone, one a line.")
@json_option
@config_option
def command(paths: tuple[str, ...], form: str | None, as_json: bool, config_file: str | None) -> int:
    """Show what was changed in the sandbox since syncd put it there, as a patch that `git apply` takes.

    Of PATHs, if any, with what is below them. What the workspace's rules exclude is counted, not shown. Exits with 0
    if nothing was changed, with 1 if something was.

    --json: changes, each with path, change (added, modified, deleted, mode, type), bytes, binary, here (same, changed,
    missing, left-out); left_out, the number of paths that the rules exclude.
    """
    config = configured(config_file)
    from syncd.cli.agent_side import look_at, open_sandbox  # noqa: PLC0415 - after the configuration is known

    named = named_paths(config, paths)
    with stoppable(), open_sandbox(config) as opened:
        return show(look_at(opened), named, "json" if as_json else form)


def show(side: AgentSide, named: tuple[str, ...], form: str | None) -> int:
    """Print what differs of these paths, and return the exit code. Raises `SyncdError`."""
    local = side.local()
    paths = [path for path in sorted(side.work.changed, key=os.fsencode) if is_named(path, named)]
    if form == "json":
        rows = [_row(side, path, local[path]) for path in paths]
        click.echo(json.dumps({"changes": rows, "left_out": len(side.work.left_out) + len(side.work.pruned)}))
        return ExitCode.DIFFERENT if rows else ExitCode.DONE
    before, after = _both_sides(side, paths, local)
    if form == "names":
        for path in paths:
            if _is_shown(side, path):
                print_path(path)
    elif before or after:
        _print_patch(side, before, after, form)
    side.tell_left_out("not shown")
    return ExitCode.DIFFERENT if paths else ExitCode.DONE


def _both_sides(
    side: AgentSide, paths: Iterable[str], local: dict[str, Entry]
) -> tuple[dict[str, SeenEntry], dict[str, SeenEntry]]:
    """Return what was sent and what is there, of the paths that a patch can show."""
    sent: dict[str, SeenEntry] = {}
    there: dict[str, SeenEntry] = {}
    for path in paths:
        remote, entry, here = side.work.changed[path], side.work.base_of(path), local[path]
        if is_version(remote):
            there[path] = remote
        elif remote.kind in (Kind.FILE, Kind.OTHER, Kind.UNREAD):
            why = "still being written" if remote.unstable else "not a file or link that can be read"
            click.echo(f"not shown: {shown_path(path)} is {why}", err=True)
            continue
        before = side.base_version(path, here)
        if before is None and entry is not None and entry.kind is not Kind.DIRECTORY:
            click.echo(f"{shown_path(path)}: what was sent is gone; shown from what is here", err=True)
            before = side.here(path, here)
        if before is not None and is_version(before):
            sent[path] = before
    return sent, there


def _is_shown(side: AgentSide, path: str) -> bool:
    """A directory is shown by what is in it."""
    kinds = {side.work.changed[path].kind, (side.work.base_of(path) or ABSENT).kind}
    return bool(kinds - {Kind.DIRECTORY, Kind.ABSENT})


def _row(side: AgentSide, path: str, here: Entry) -> dict[str, Any]:
    remote, entry = side.work.changed[path], side.work.base_of(path)
    if entry is None:
        change = "added"
    elif remote.kind is Kind.ABSENT:
        change = "deleted"
    elif remote.kind is not entry.kind:
        change = "type"
    else:
        change = "mode" if remote.digest and remote.digest == entry.digest else "modified"
    if here.kind is Kind.ABSENT and entry is not None:
        state = "missing"
    elif here.kind is Kind.ABSENT or (entry is not None and same(here, entry)):
        state = "same"
    else:
        state = "left-out" if side.rules.leave_out(path, here.is_directory) else "changed"
    return {
        "path": path,
        "change": change,
        "bytes": remote.size_bytes,
        "binary": bool(remote.copy) and _is_binary(remote.copy),
        "here": state,
    }


def _is_binary(copy: str) -> bool:
    with open(copy, "rb") as file:
        return is_binary(file.read(8000))


def _print_patch(side: AgentSide, before: dict[str, SeenEntry], after: dict[str, SeenEntry], form: str | None) -> None:
    git, scratch = need_git(os.environ), side.opened.scratch
    if form == "stat":
        blocks = write_table(git, before, after, scratch)
    else:
        ids = object_format_around(git, side.opened.config.workspace.path)
        blocks = write_patch(git, before, after, scratch=scratch, object_format=ids)
    if sys.stdout.isatty():
        colours = COLOURED if may_colour() else PLAIN
        encoding = sys.stdout.encoding
        blocks = (f"{line}\n".encode(encoding, "backslashreplace") for line in for_terminal(blocks, colours))
    paged(blocks)
