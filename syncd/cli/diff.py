"""`syncd diff`: what was changed in the sandbox, as a patch; and what several agents did, side by side."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from syncd.cli.layout import aligned, keep_showing
from syncd.cli.options import (
    CLOCK,
    all_option,
    config_option,
    config_path,
    configured,
    configured_for_each,
    hinted,
    is_named,
    json_option,
    named_paths,
    of_sandbox,
    sandbox_option,
    stoppable,
)
from syncd.cli.output import may_colour, paged, print_path
from syncd.core.errors import ExitCode, NeedsPerson, SyncdError
from syncd.core.settings import Config
from syncd.core.text import shown_path, size
from syncd.merge.git import is_binary, is_version, need_git, object_format_around
from syncd.merge.patch import COLOURED, PLAIN, for_terminal, write_patch, write_table
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry, same
from syncd.model.git_names import is_in_repository

if TYPE_CHECKING:
    from syncd.cli.agent_side import AgentSide
    from syncd.sync.status_document import AgentStatus

# Before a path that several agents changed.
_SEVERAL = "!"


@click.command("diff")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(readable=False))
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
    missing, left-out) and sandbox (its name); left_out, the number of paths that the rules exclude. With --against:
    change and bytes are what that sandbox has otherwise.
    """
    if against is not None and (sandbox is None or all_sandboxes):
        raise click.UsageError("--against goes with --sandbox NAME, which it is compared with.")
    if watch and (all_sandboxes or against is not None):
        raise click.UsageError("--watch goes with neither --all nor --against.")
    configs = configured_for_each(config_file, sandbox, all_sandboxes)
    named = named_paths(configs[0], paths)
    form = "json" if as_json else form
    with stoppable():
        if against is not None:
            return _show_against(configs[0], of_sandbox(configured(config_file), against), named, form)
        if watch:
            return _show_changes(configs[0], config_path(config_file), named, form)
        return _show_each(configs, named, form, heading=all_sandboxes)


def show(side: AgentSide, named: tuple[str, ...], form: str | None) -> None:
    """Print what differs of these paths. Raises `SyncdError`."""
    paths = _paths(side, named)
    before, after = both_sides(side, paths, side.local())
    if form == "names":
        for path in paths:
            if is_shown(side, path):
                print_path(path)
    elif before or after:
        print_patch(side, before, after, form)
    side.tell_left_out("not shown")


def both_sides(
    side: AgentSide, paths: Iterable[str], local: dict[str, Entry]
) -> tuple[dict[str, SeenEntry], dict[str, SeenEntry]]:
    """Return what was sent and what is there, of the paths that a patch can show."""
    sent: dict[str, SeenEntry] = {}
    there: dict[str, SeenEntry] = {}
    for path in paths:
        remote, entry, here = side.work.changed[path], side.work.base_of(path), local[path]
        if not is_version(remote) and remote.kind in (Kind.FILE, Kind.OTHER, Kind.UNREAD):
            tell_unshown(path, remote)
            continue
        before = side.base_version(path, here)
        if before is None and entry is not None and entry.kind is not Kind.DIRECTORY:
            if here.kind is Kind.UNREAD:
                click.echo(f"not shown: {shown_path(path)} cannot be read here, and what was sent is gone", err=True)
                continue
            click.echo(f"{shown_path(path)}: what was sent is gone; shown from what is here", err=True)
            before = side.here(path, here)
        if is_version(remote):
            there[path] = remote
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
    remote = side.work.changed.get(path)
    return "" if remote is None else _change(side.work.base_of(path) or ABSENT, remote)


def _change(before: Entry, after: Entry) -> str:
    if before.kind is Kind.ABSENT:
        return "added"
    if after.kind is Kind.ABSENT:
        return "deleted"
    if after.kind is not before.kind:
        return "type"
    return "mode" if after.digest and after.digest == before.digest else "modified"


def row_of(side: AgentSide, path: str, here: Entry) -> dict[str, Any]:
    """The change of a path as `diff --json` prints it."""
    return _row(side, path, here, change_of(side, path), side.work.changed[path])


def _row(side: AgentSide, path: str, here: Entry, change: str, remote: SeenEntry) -> dict[str, Any]:
    entry = side.work.base_of(path)
    if here.kind is Kind.ABSENT and entry is not None:
        state = "missing"
    elif here.kind is Kind.ABSENT or (entry is not None and same(here, entry)):
        state = "same"
    else:
        state = "left-out" if side.rules.leave_out(path, here.is_directory) else "changed"
    return {
        "path": path,
        "change": change,
        "bytes": 0 if remote.is_directory else remote.size_bytes,
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


# -- several sandboxes


def _show_each(configs: Sequence[Config], named: tuple[str, ...], form: str | None, *, heading: bool) -> int:
    """Print what each agent changed of these paths, and return the exit code; with a heading, --stat is a table.

    A sandbox that cannot be asked is named, and keeps no other from being shown. Raises its failure at the end.
    """
    from syncd.cli.agent_side import for_each, look_at, open_sandbox  # noqa: PLC0415 - after the configuration is known

    table: dict[str, dict[str, str]] = {}  # by path, what each sandbox did
    names: list[str] = []
    rows: list[dict[str, Any]] = []
    left_out, codes = 0, {ExitCode.DONE}

    def ask(config: Config) -> None:
        nonlocal left_out
        name = config.sandbox_name
        with open_sandbox(config) as opened:
            side = look_at(opened)
            names.append(name)
            paths = _paths(side, named)
            codes.add(ExitCode.DIFFERENT if paths else ExitCode.DONE)
            if form == "json":
                local = side.local()
                rows.extend(row_of(side, path, local[path]) for path in paths)
                left_out += side.left_out
            elif form == "stat" and heading:
                for path in filter(partial(is_shown, side), paths):
                    table.setdefault(path, {})[name] = change_of(side, path)
                side.tell_left_out(f"not shown of {name}")
            else:
                if heading:
                    click.echo(f"# {name}")
                show(side, named, form)

    failed = for_each(configs, ask)
    if form == "json":
        click.echo(json.dumps({"changes": rows, "left_out": left_out}))
    elif table:
        for line in aligned([("", *names), *(_line(path, by_name, names) for path, by_name in sorted(table.items()))]):
            print(line.rstrip())
    if failed is not None:
        raise failed
    return max(codes)


def _show_against(ours: Config, other: Config, named: tuple[str, ...], form: str | None) -> int:
    """Print what the other agent did otherwise, as a patch from this one's to the other's; return the exit code."""
    from syncd.cli.agent_side import look_at, open_sandbox, with_copy  # noqa: PLC0415 - after the configuration is known

    with open_sandbox(ours) as opened, open_sandbox(other) as opened_other:
        first, second = look_at(opened), look_at(opened_other)
        paths = [path for path in {*_paths(first, named), *_paths(second, named)} if not _is_same(first, second, path)]
        paths.sort(key=os.fsencode)
        before, after = _versions(first, paths), _versions(second, paths)
        if form == "json":
            here = second.writer.look(paths)
            rows = []
            for path in paths:
                there = _there(second, path)
                version = after.get(path) or with_copy(there, "")
                rows.append(_row(second, path, here[path], _change(_there(first, path), there), version))
            click.echo(json.dumps({"changes": rows, "left_out": first.left_out + second.left_out}))
        elif form == "names":
            for path in paths:
                if {_there(side, path).kind for side in (first, second)} - {Kind.ABSENT, Kind.DIRECTORY}:
                    print_path(path)
        elif before or after:
            print_patch(first, before, after, form)
    return ExitCode.DIFFERENT if paths else ExitCode.DONE


def _paths(side: AgentSide, named: tuple[str, ...]) -> list[str]:
    """Return the paths that differ, in order; git takes no patch of what is in a `.git`, which may be sent."""
    found = [path for path in side.work.changed if is_named(path, named) and not is_in_repository(path)]
    return sorted(found, key=os.fsencode)


def _line(path: str, by_name: dict[str, str], names: list[str]) -> tuple[str, ...]:
    mark = _SEVERAL if len(by_name) > 1 else " "
    return (f"{mark} {shown_path(path)}", *(by_name.get(name, "") for name in names))


def _is_same(first: AgentSide, second: AgentSide, path: str) -> bool:
    return same(_there(first, path), _there(second, path))


def _there(side: AgentSide, path: str) -> Entry:
    """The entry that the sandbox has at this path, as far as is known."""
    return side.work.changed.get(path) or side.work.base_of(path) or ABSENT


def _versions(side: AgentSide, paths: list[str]) -> dict[str, SeenEntry]:
    """The versions of these paths in a sandbox that a patch can show: what its agent made, or what was sent."""
    found = {}
    here = side.writer.look(paths)
    for path in paths:
        changed = side.work.changed.get(path)
        version = changed if changed is not None else side.base_version(path, here[path])
        if version is not None and is_version(version):
            found[path] = version
        elif changed is not None and changed.kind not in (Kind.ABSENT, Kind.DIRECTORY):
            tell_unshown(path, changed)
    return found


# -- while an agent works


def _show_changes(config: Config, path: str, named: tuple[str, ...], form: str | None) -> int:
    """Show the changes of these paths, each time that the daemon found others, until a person ends it.

    `path` is that of the configuration. Raises `NeedsPerson` if nothing follows the agent.
    """
    from syncd.cli.status.reader import reader_for  # noqa: PLC0415 - for this alone
    from syncd.cli.status.screen import agent_text  # noqa: PLC0415

    reader = reader_for(path, lambda _path: config)
    seen: tuple[object, ...] = ()
    shown = ""

    def read() -> tuple[AgentStatus, str]:
        nonlocal seen, shown
        status = reader.status()
        agent = next((each.agent for each in status.sandboxes if each.name == config.sandbox_name), status.agent)
        now = (status.syncs, agent.changed_at, agent.changed)
        if not status.running:
            raise NeedsPerson("no daemon runs, so nothing is followed", "run `syncd service install`, or `syncd run`")
        if now != seen:
            seen, shown = now, _shown(config, named, form)
        return replace(agent, looked_at=None, followed_at=None, follow_requests=0), shown

    def text(read: tuple[AgentStatus, str]) -> str:
        agent, changes = read
        return changes if form == "json" else f"{hinted(agent_text(agent, CLOCK.wall_s()))}\n\n{changes}".lstrip("\n")

    if not config.sandbox.follow_seconds:
        raise NeedsPerson("nothing is followed (sandbox.follow_seconds = 0)", "set it to 5 or more, as 10")
    keep_showing(read, text, as_json=form == "json")
    return ExitCode.DONE


def _shown(config: Config, named: tuple[str, ...], form: str | None) -> str:
    """Return what `syncd diff` prints, or why it fails."""
    from syncd.remote.failure import StepFailed  # noqa: PLC0415 - after the configuration is known

    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", newline="", write_through=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            _show_each([config], named, form, heading=False)
        except (SyncdError, StepFailed) as failure:
            return str(failure.as_error() if isinstance(failure, StepFailed) else failure)
    out.seek(0)
    return out.read().rstrip("\n")
