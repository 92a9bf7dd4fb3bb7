"""`syncd diff`: what was changed in the sandbox since syncd put it there, as a patch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.options import (
    all_option,
    config_option,
    config_path,
    configured,
    configured_for_each,
    is_named,
    json_option,
    named_paths,
    of_sandbox,
    sandbox_option,
    stoppable,
)
from syncd.cli.output import may_colour, paged, print_path
from syncd.core.errors import ExitCode
from syncd.core.text import shown_path, size
from syncd.merge.git import is_binary, is_version, need_git, object_format_around
from syncd.merge.patch import COLOURED, PLAIN, for_terminal, write_patch, write_table
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry, same

if TYPE_CHECKING:
    from syncd.cli.agent_side import AgentSide


@click.command("diff")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path())
@click.option("--stat", "form", flag_value="stat", help="How many lines each path adds and removes.")
@click.option("--name-only", "form", flag_value="names", help="The paths alone, one a line.")
@sandbox_option
@all_option
@click.option("--against", metavar="NAME", help="What that sandbox's agent did otherwise, as a patch from --sandbox's.")
@click.option("--watch", is_flag=True, help="Keep running, and show it as it changes, until Ctrl-C.")
@json_option
@config_option
def command(  # noqa: PLR0917 - click passes each option
    paths: tuple[str, ...],
    form: str | None,
    sandbox: str | None,
    all_sandboxes: bool,
    against: str | None,
    as_json: bool,
    config_file: str | None,
    *,
    watch: bool,
) -> int:
    """Show what was changed in the sandbox since syncd put it there, as a patch that `git apply` takes.

    Of PATHs, if any, with what is below them. What the workspace's rules exclude is counted, not shown. Exits with 0
    if nothing was changed, with 1 if something was. With --all --stat it is a table: a row a path, a column a sandbox,
    and a ! before what several agents changed. --watch needs sandbox.follow_seconds.

    --json: changes, each with path, change (added, modified, deleted, mode, type), bytes, binary, here (same, changed,
    missing, left-out) and sandbox (its name); left_out, the number of paths that the rules exclude.
    """
    if against is not None and (sandbox is None or all_sandboxes):
        raise click.UsageError("--against goes with --sandbox NAME, which it is compared with.")
    if watch and (all_sandboxes or against is not None):
        raise click.UsageError("--watch goes with neither --all nor --against.")
    configs = configured_for_each(config_file, sandbox, all_sandboxes)
    named = named_paths(configs[0], paths)
    form = "json" if as_json else form
    with stoppable():
        if all_sandboxes or against is not None:
            from syncd.cli.diff.compare import show_against, show_all  # noqa: PLC0415 - for several sandboxes

            if against is None:
                return show_all(configs, named, form)
            return show_against(configs[0], of_sandbox(configured(config_file), against), named, form)
        if watch:
            from syncd.cli.diff.watch import show_changes  # noqa: PLC0415 - for this alone

            return show_changes(configs[0], config_path(config_file), named, form)
        from syncd.cli.agent_side import look_at, open_sandbox  # noqa: PLC0415 - after the configuration is known

        with open_sandbox(configs[0]) as opened:
            return show(look_at(opened), named, form)


def show(side: AgentSide, named: tuple[str, ...], form: str | None) -> int:
    """Print what differs of these paths, and return the exit code. Raises `SyncdError`."""
    local = side.local()
    paths = [path for path in sorted(side.work.changed, key=os.fsencode) if is_named(path, named)]
    if form == "json":
        rows = [row_of(side, path, local[path]) for path in paths]
        click.echo(json.dumps({"changes": rows, "left_out": side.left_out}))
        return ExitCode.DIFFERENT if rows else ExitCode.DONE
    before, after = both_sides(side, paths, local)
    if form == "names":
        for path in paths:
            if is_shown(side, path):
                print_path(path)
    elif before or after:
        print_patch(side, before, after, form)
    side.tell_left_out("not shown")
    return ExitCode.DIFFERENT if paths else ExitCode.DONE


def both_sides(
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
            tell_unshown(path, remote)
            continue
        before = side.base_version(path, here)
        if before is None and entry is not None and entry.kind is not Kind.DIRECTORY:
            click.echo(f"{shown_path(path)}: what was sent is gone; shown from what is here", err=True)
            before = side.here(path, here)
        if before is not None and is_version(before):
            sent[path] = before
    return sent, there


def tell_unshown(path: str, remote: SeenEntry) -> None:
    """Say on stderr that a path in the sandbox cannot be shown, and why."""
    why = "not a file or link that can be read"
    if remote.unstable:
        why = "still being written"
    elif remote.kind is Kind.FILE:
        why = f"a file of {size(remote.size_bytes)} that was not fetched"
    click.echo(f"not shown: {shown_path(path)} is {why}", err=True)


def is_shown(side: AgentSide, path: str) -> bool:
    """A directory is shown by what is in it."""
    kinds = {side.work.changed[path].kind, (side.work.base_of(path) or ABSENT).kind}
    return bool(kinds - {Kind.DIRECTORY, Kind.ABSENT})


def change_of(side: AgentSide, path: str) -> str:
    """The change of a path in the sandbox in a word; empty if it has none."""
    remote, entry = side.work.changed.get(path), side.work.base_of(path)
    if remote is None:
        return ""
    if entry is None:
        return "added"
    if remote.kind is Kind.ABSENT:
        return "deleted"
    if remote.kind is not entry.kind:
        return "type"
    return "mode" if remote.digest and remote.digest == entry.digest else "modified"


def row_of(side: AgentSide, path: str, here: Entry) -> dict[str, Any]:
    """The change of a path as `diff --json` prints it."""
    remote, entry = side.work.changed[path], side.work.base_of(path)
    if here.kind is Kind.ABSENT and entry is not None:
        state = "missing"
    elif here.kind is Kind.ABSENT or (entry is not None and same(here, entry)):
        state = "same"
    else:
        state = "left-out" if side.rules.leave_out(path, here.is_directory) else "changed"
    return {
        "path": path,
        "change": change_of(side, path),
        "bytes": remote.size_bytes,
        "binary": bool(remote.copy) and _is_binary(remote.copy),
        "here": state,
        "sandbox": side.opened.config.sandbox_name,
    }


def _is_binary(copy: str) -> bool:
    with open(copy, "rb") as file:
        return is_binary(file.read(8000))


def print_patch(side: AgentSide, before: dict[str, SeenEntry], after: dict[str, SeenEntry], form: str | None) -> None:
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
