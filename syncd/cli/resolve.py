"""`syncd resolve`: lists what waits for a person's decision, or carries one out as an `apply` of that path."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.options import (
    CLOCK,
    config_option,
    configured_for,
    is_named,
    json_option,
    named_paths,
    sandbox_option,
    stoppable,
)
from syncd.core.errors import ExitCode
from syncd.core.text import ago, shown_path, size
from syncd.model.entry import Entry, Kind
from syncd.model.reconcile import Choice

if TYPE_CHECKING:
    from syncd.cli.apply.waiting import Waiting

_HELP = {
    Choice.MINE: "Yours: the next sync sends it.",
    Choice.THEIRS: "The sandbox's: it is taken, or deleted here.",
    Choice.BOTH: "Yours, with the sandbox's beside it as PATH.theirs.",
    Choice.MARKERS: "Both in one text, with git's conflict markers.",
    Choice.TOOL: "What you make of both in git's merge tool.",
}


def _choices(command: Any) -> Any:
    for choice, text in reversed(_HELP.items()):
        command = click.option(f"--{choice.name.lower()}", is_flag=True, help=text)(command)
    return command


@click.command("resolve")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path())
@_choices
@sandbox_option
@json_option
@config_option
def command(paths: tuple[str, ...], config_file: str | None, sandbox: str | None, as_json: bool, **flags: bool) -> int:
    """List what waits for your decision, or decide it.

    Conflicts wait that `syncd apply` left, paths that are held, and what one side deleted and the other changed. A
    decision about PATHs, with what is below them, is an `apply` of these: all is written, or nothing is, and `syncd
    apply --undo` takes it back. The sandbox's version is saved (`syncd saved`) where it is not taken.

    Exits with 1 if something waits, or is left. A path for which a choice makes no sense, such as --markers for what is
    no text, is wrong usage (2), and then nothing is changed.

    --json: without a choice: waiting, each with path, reason, held, here and there (kind, bytes, mtime; null: deleted)
    and choices (those that it allows); with one: the lists of `syncd apply --json`, mine, and beside (new names).
    """
    chosen = [choice for choice in Choice if flags[choice.name.lower()]]
    if len(chosen) > 1:
        raise click.UsageError("Name one of --mine, --theirs, --both, --markers and --tool.")
    if chosen and not paths:
        raise click.UsageError(f"Name the PATHs that --{chosen[0].name.lower()} decides.")
    config = configured_for(config_file, sandbox)
    named = named_paths(config, paths)
    from syncd.cli.agent_side import look_at, open_sandbox  # noqa: PLC0415 - after the configuration is known
    from syncd.cli.apply.execution import take_back_killed  # noqa: PLC0415
    from syncd.cli.apply.waiting import carry_out_choice, find_waiting  # noqa: PLC0415

    with stoppable():
        if chosen:
            take_back_killed(config)
        with open_sandbox(config) as opened:
            waiting = find_waiting(look_at(opened))
            found = [each for each in waiting.rows if is_named(each.path, named)]
            if not chosen:
                return _list(found, as_json=as_json)
            if not found:
                click.echo("nothing waits for a decision there: `syncd resolve` lists what does", err=True)
            return carry_out_choice(waiting, [each.path for each in found], chosen[0], as_json=as_json)


def _list(rows: list[Waiting], *, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps({"waiting": [_row(each) for each in rows]}))
    elif not rows:
        click.echo("nothing waits for a decision", err=True)
    else:
        now_s = CLOCK.wall_s()
        for each in rows:
            sides = f" (here {_side(each.here, now_s)}; there {_side(each.there, now_s)})" if each.choices else ""
            click.echo(f"{'held' if each.is_held else 'conflict':8}  {shown_path(each.path)}: {each.reason}{sides}")
        options = ", ".join(f"--{choice.name.lower()}" for choice in Choice)
        click.echo(f"`syncd resolve PATH` decides, with one of {options}", err=True)
    return ExitCode.DIFFERENT if rows else ExitCode.DONE


def _row(each: Waiting) -> dict[str, Any]:
    return {
        "path": each.path,
        "reason": each.reason,
        "held": each.is_held,
        "here": _described(each.here),
        "there": _described(each.there),
        "choices": [choice.name.lower() for choice in each.choices],
    }


def _mtime_s(entry: Entry) -> int:
    return entry.mtime_s if entry.stamp is None else entry.stamp.mtime_ns // 1_000_000_000


def _described(entry: Entry) -> dict[str, Any] | None:
    if entry.kind in (Kind.ABSENT, Kind.OTHER):
        return None
    return {"kind": entry.kind.name.lower(), "bytes": entry.size_bytes, "mtime": _mtime_s(entry)}


def _side(entry: Entry, now_s: float) -> str:
    if entry.kind in (Kind.ABSENT, Kind.OTHER):
        return "nothing"
    what = size(entry.size_bytes) if entry.kind is Kind.FILE else entry.kind.name.lower()
    return f"{what}, {ago(now_s - _mtime_s(entry))}"
