"""`syncd resolve`: lists the paths that wait for a person's decision, or decides them.

The plan of an `apply` says what waits; a conflict of the last one, whose version in the sandbox a sync has overwritten
since, is planned for with the saved version.
"""

from __future__ import annotations

import json
from typing import Any

import click
from msgspec import Struct
from msgspec.structs import replace

from syncd.cli.agent_side import OpenSandbox, is_named, look_at, open_sandbox, take_back_killed
from syncd.cli.apply import bring_home_and_save, tell_end
from syncd.cli.apply.plan_text import plan_lines
from syncd.cli.options import (
    CLOCK,
    configured_for,
    hinted,
    named_paths,
    refuse_elsewhere,
    sandbox_options,
    stoppable,
)
from syncd.core.errors import ExitCode
from syncd.core.text import ago, counted, shown_path, size
from syncd.merge.home import AgentSide, make_plan, why_no_text, with_texts
from syncd.merge.workspace_writer import OpenConflicts
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry, same
from syncd.model.reconcile import Choice, PathOutcome, Plan, differs_on_both, waits
from syncd.sandbox.saved_versions import Why


@click.command("resolve")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(readable=False))
@click.option("--mine", is_flag=True, help="Yours: the next sync sends it.")
@click.option("--theirs", is_flag=True, help="The agent's: applied, or deleted here.")
@click.option("--markers", is_flag=True, help="Both in one text, with git's conflict markers.")
@sandbox_options
def command(paths: tuple[str, ...], config_file: str | None, sandbox: str | None, as_json: bool, **flags: bool) -> int:
    """List what waits for your decision, or decide it.

    \b
    syncd resolve                    exit code 1: some wait
    syncd resolve src --theirs       the agent's, in all src
    syncd resolve a.txt --markers    both, to be edited

    Conflicts of `syncd apply` wait, held paths, and what one side deleted and the other changed. The agent's version
    is saved where it is not applied. All is written, or nothing is, and `syncd apply --undo` takes it back.
    """
    chosen = [choice for choice in Choice if flags[choice.name.lower()]]
    if len(chosen) > 1:
        raise click.UsageError("Name one of --mine, --theirs and --markers.")
    if chosen and not paths:
        raise click.UsageError(f"Name the PATHs that --{chosen[0].name.lower()} decides.")
    refuse_elsewhere(config_file)
    config = configured_for(config_file, sandbox)
    named = named_paths(config, paths)
    with stoppable():
        if chosen:
            take_back_killed(config)
        with open_sandbox(config) as opened:
            side = _with_saved(look_at(opened))
            here = side.local()
            plan = with_texts(side.home, make_plan(side, here))
            found = [each for each in _waiting(side, plan) if is_named(each.path, named)]
            if not chosen:
                code = _list(found, as_json=as_json)
                _tell_saved(opened)
                return code
            if not found:
                click.echo(hinted("nothing waits for a decision there: `syncd resolve` lists what does"), err=True)
                _tell_saved(opened)
            for each in found:
                if not each.choices:
                    click.echo(f"{shown_path(each.path)} waits for something else: {each.reason}", err=True)
            choices = {each.path: chosen[0] for each in found if each.choices}
            plan = make_plan(side, here, choices=choices)
            decided = (each for each in plan.paths if each.choice or each.path in choices)
            done = with_texts(side.home, Plan(tuple(decided)))
            if chosen[0] is Choice.MARKERS and (refused := done.of(PathOutcome.CONFLICT)):
                raise click.UsageError(
                    f"{shown_path(refused[0].path)} cannot be decided by --markers ({refused[0].reason})."
                )
            if choices:
                done = bring_home_and_save(opened, side, done)
            code = tell_end(done, plan_lines(done), as_json=as_json)
            is_open = len(choices) < len(found) or any(waits(each) for each in done.paths)
            return ExitCode.DIFFERENT if is_open else code


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
        if any(each.choices for each in rows):
            options = ", ".join(f"--{choice.name.lower()}" for choice in Choice)
            click.echo(hinted(f"`syncd resolve PATH` decides, with one of {options}"), err=True)
    return ExitCode.DIFFERENT if rows else ExitCode.DONE


def _tell_saved(opened: OpenSandbox) -> None:
    """Count on stderr the versions that gave way to ours: they wait for nothing, and may be wanted all the same."""
    name = opened.access.config.sandbox_name
    versions = opened.sandbox.saver.saved_versions.all()
    gave_way = sum(each.why is Why.OVERWRITTEN and each.sandbox_name == name for each in versions)
    if gave_way:
        click.echo(hinted(f"{counted(gave_way, 'version')} saved where both changed a path: `syncd saved`"), err=True)


def _row(each: Waiting) -> dict[str, Any]:
    sides = {"here": _described(each.here), "there": _described(each.there)}
    choices = [choice.name.lower() for choice in each.choices]
    return {"path": each.path, "reason": each.reason, "held": each.is_held, **sides, "choices": choices}


def _described(entry: Entry) -> dict[str, Any] | None:
    if entry.kind in (Kind.ABSENT, Kind.OTHER):
        return None
    mtime_s = entry.mtime_s if entry.stamp is None else entry.stamp.mtime_ns // 1_000_000_000
    return {"kind": entry.kind.name.lower(), "bytes": 0 if entry.is_directory else entry.size_bytes, "mtime": mtime_s}


def _side(entry: Entry, now_s: float) -> str:
    about = _described(entry)
    if about is None or entry.kind is Kind.UNREAD:
        return "nothing" if about is None else "unreadable"
    what = size(entry.size_bytes) if entry.kind is Kind.FILE else about["kind"]
    return f"{what}, {ago(now_s - about['mtime'])}"


class Waiting(Struct, frozen=True):
    """A path that waits, with both sides; one without choices waits for something else than a choice."""

    path: str
    reason: str
    is_held: bool
    here: Entry
    there: Entry
    choices: tuple[Choice, ...] = ()


def _waiting(side: AgentSide, plan: Plan) -> list[Waiting]:
    """Return what waits by this plan."""
    seen = side.sandbox.state.seen
    both = {*seen.both_changed, *side.saved}
    rows: dict[str, Waiting] = {}
    for each in plan.paths:
        if waits(each) or (each.outcome is PathOutcome.MERGE and each.path in both):
            choices = tuple(choice for choice in Choice if choice is not Choice.MARKERS or not why_no_text(each))
            advice = "both sides changed it; `syncd apply` can merge it"
        elif each.outcome is PathOutcome.UNFETCHED and differs_on_both(each):
            choices, advice = (), ""  # its reason says what it waits for
        elif each.path in seen.both_changed and each.outcome is not PathOutcome.SAME:
            choices, advice = (), "only the agent changed it; `syncd apply` brings it home"
        else:
            continue
        is_held = each.path in seen.held
        rows[each.path] = Waiting(each.path, each.reason or hinted(advice), is_held, each.here, each.there, choices)
    for warning in seen.warnings:
        kind, _, path = warning.key.partition(":")
        if kind == "obstacle" and path not in rows:
            rows[path] = Waiting(path, f"{warning.what}: {hinted(warning.remedy)}", True, ABSENT, ABSENT)
    return [rows[path] for path in sorted(rows)]


def _with_saved(side: AgentSide) -> AgentSide:
    """Return the sides with what only saved versions have of conflicts."""
    sandbox = side.sandbox
    store = sandbox.saver.saved_versions
    changed: dict[str, SeenEntry] = {}
    base: dict[str, list[Entry]] = {}
    for path, id_ in OpenConflicts(sandbox.state.db, sandbox.target.owner).versions.items():
        version = None if path in side.work.changed else store.find(id_)
        there = None if version is None else version.paths.get(path)
        if (
            version is None
            or there is None
            or side.is_excluded(path, there.is_directory)
            or path in store.damaged(version)
        ):
            continue
        changed[path] = store.seen(version, path)
        base[path] = [version.bases[path]] if path in version.bases else []
    here = side.home.writer.look(changed)
    changed = {path: there for path, there in changed.items() if not same(here[path], there)}
    work = replace(side.work, changed={**side.work.changed, **changed}, base=base)
    return replace(side, work=work, saved=frozenset(changed))
