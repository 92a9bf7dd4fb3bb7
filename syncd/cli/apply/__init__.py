"""`syncd apply`: brings home what was changed in the sandbox, so that it can be reviewed, merged and undone.

An `apply`, its undo, and a saved version's way home are carried out here: shown, asked for, told path by path.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import click

from syncd.cli.agent_side import (
    WHY_LEFT,
    OpenSandbox,
    check_place,
    is_named,
    look_at,
    no_sync_begins,
    open_home,
    open_sandbox,
    scratch_folder,
    take_back_killed,
    tell_excluded,
    written_config,
)
from syncd.cli.apply.branch import apply_to_branches
from syncd.cli.apply.plan_text import lists_of, not_fetched, plan_lines, summary_line
from syncd.cli.diff import show
from syncd.cli.options import (
    all_option,
    answered,
    configured,
    configured_for_each,
    hinted,
    interruptible,
    named_paths,
    note_done,
    refuse_elsewhere,
    sandbox_options,
    stoppable,
)
from syncd.cli.output import paged, print_error
from syncd.core.errors import ExitCode, NeedsPerson, SyncdError
from syncd.core.settings import Config
from syncd.core.text import counted, shown_path
from syncd.core.waiter import Waiter
from syncd.daemon.build import folders_of, target_of
from syncd.merge.home import AgentSide, bring_home, make_plan, plan_of_version, save_conflicts, with_texts, write
from syncd.merge.workspace_writer import OpenConflicts
from syncd.model.reconcile import CHANGES, PathOutcome, Plan
from syncd.sandbox.saved_versions import SavedVersion, SavedVersions
from syncd.selection.selection import PathPatterns

# A person is shown a longer plan page by page.
_MOST_LINES = 30
_PLANNED = "would be: "


@click.command("apply")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(readable=False))
@click.option("--dry-run", is_flag=True, help="Show the plan, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--deletions", is_flag=True, help="Delete here what was deleted there.")
@click.option("--include", "patterns", metavar="PATTERN", multiple=True, help="Excluded paths too that match it.")
@click.option("--branch", metavar="NAME", help="Put all on a new branch of git.")
@click.option("--undo", is_flag=True, help="Take back the last `apply`.")
@all_option
@sandbox_options
def command(
    paths: tuple[str, ...], config_file: str | None, branch: str | None, sandbox: str | None, **flags: Any
) -> int:
    """Bring home what was changed in the sandbox.

    \b
    syncd apply                   shows the plan, and asks
    syncd apply --branch agent    all on a new branch of git
    syncd apply --undo

    Texts that both sides changed are merged. Exit code 1: a conflict is left; yours stays, its version is in
    `syncd saved`.
    \f

    What only the agent changed is applied. All is written, or nothing is. With `--branch` nothing here changes;
    `--undo` takes back the last one, of whichever sandbox. Exit code 75: a file could not be fetched.
    """
    undo, dry_run, deletions, patterns = flags["undo"], flags["dry_run"], flags["deletions"], flags["patterns"]
    if undo and (paths or patterns or branch or dry_run or deletions):
        raise click.UsageError("--undo goes with no other option but --sandbox, --json and --config.")
    if branch is not None and (dry_run or deletions):
        raise click.UsageError("--branch goes with neither --dry-run nor --deletions.")
    if flags["all_sandboxes"] and (branch is None or "{sandbox}" not in branch):
        raise click.UsageError("--all goes with --branch alone, and with {sandbox} in its name.")
    refuse_elsewhere(config_file)
    # An undo takes back the last one, of whichever sandbox.
    configs = [configured(config_file)] if undo else configured_for_each(config_file, sandbox, flags["all_sandboxes"])
    config = configs[0]
    named = named_paths(config, paths)
    as_json = flags["as_json"]
    with stoppable():
        if undo:
            return undo_and_tell(config, sandbox, as_json=as_json)
        if branch is not None:
            return apply_to_branches(configs, branch, named, patterns, as_json=as_json)
        asks = not (flags["yes"] or as_json or dry_run) and sys.stdin.isatty() and sys.stdout.isatty()
        return apply(config, named, patterns, deletions=deletions, dry_run=dry_run, as_json=as_json, asks=asks)


def apply(
    config: Config,
    named: Collection[str],
    included: tuple[str, ...],
    *,
    deletions: bool,
    dry_run: bool,
    as_json: bool,
    asks: bool,
) -> int:
    """Bring home what was changed in the sandbox, and say what became of each path. Raises `SyncdError`, `Stop`.

    Of `named` paths of the workspace, all if there are none; what matches `included` comes against the rules, too.
    """
    is_wanted = partial(is_named, named=named)
    if dry_run:
        check_place(config)
    else:
        take_back_killed(config)
    with open_sandbox(config) as opened:
        side = look_at(opened, PathPatterns(included) if included else None)
        plan = with_texts(side.home, make_plan(side, side.local(), is_wanted, deletions=deletions))
        lines = [*plan_lines(plan)]
        if asks and len(lines) > _MOST_LINES:
            paged(f"{line}\n".encode("utf-8", "backslashreplace") for line in lines)
        else:
            for line in () if as_json else lines:
                click.echo(line)
        tell_excluded(side, "not applied (`syncd apply --include PATTERN` does)")
        if dry_run:
            return tell_end(plan, prefix=_PLANNED, as_json=as_json)
        # Nothing else waits for the answer.
        if asks and plan.of(*CHANGES) and not _agreed(side, named, plan, opened.access.waiter):
            click.echo("nothing was changed", err=True)
            return ExitCode.DIFFERENT if plan.of(PathOutcome.CONFLICT) else ExitCode.DONE
        done = bring_home_and_save(opened, side, plan, is_wanted)
    told = {each.path for each in plan.of(PathOutcome.CONFLICT)}
    since = (each for each in done.of(PathOutcome.CONFLICT) if each.path not in told)
    code = tell_end(done, plan_lines(Plan(tuple(since))), as_json=as_json)
    if code is ExitCode.DIFFERENT and not as_json:
        # `resolve` writes to no path that the rules exclude.
        excluded = all(side.rules.exclude(each.path, each.here.is_directory) for each in done.of(PathOutcome.CONFLICT))
        decides = "" if excluded else ": `syncd resolve` decides"
        what = f"the sandbox's versions of the conflicts are saved (`syncd saved`){decides}"
        click.echo(hinted(what), err=True)
    return code


def bring_home_and_save(
    opened: OpenSandbox, side: AgentSide, plan: Plan, is_covered: Callable[[str], bool] = lambda _: False
) -> Plan:
    """Write while no sync begins, save the conflicts, and return the plan as it turned out.

    A stop in between says that all was written. What it covers and is no conflict waits no more.
    """
    with no_sync_begins(opened.access.config, opened.access.waiter):
        done = bring_home(side, plan)
        if done.of(*CHANGES, PathOutcome.WRITE):
            note_done("all was written", "`syncd apply --undo` takes it back")
        save_conflicts(side, done, is_covered)
    return done


def _agreed(side: AgentSide, named: Collection[str], plan: Plan, waiter: Waiter) -> bool:
    """True if a person wants the plan carried out; the diff is shown to one who asks for it. Raises `Stop`."""
    asked = f"{summary_line(plan, _PLANNED)}. Apply, or diff? [y/d/N]:"
    while (answer := answered(asked, ("y", "yes", "d", "diff", "n", "no", ""), waiter)) in ("d", "diff"):
        try:
            show(side, named, None)
        except SyncdError as failure:
            print_error(str(failure))
    return answer in ("y", "yes")


def restore_here(config: Config, store: SavedVersions, version: SavedVersion, *, as_json: bool) -> int:
    """Merge the version into the workspace, and say what became of each path. Raises `TryLater`, `Locked`."""
    take_back_killed(config)  # before the plan: what it wrote is here no more then
    damaged = store.damaged(version)
    for path in damaged:
        click.echo(f"not restored: {shown_path(path)}: its saved content was damaged on this disk", err=True)
    there = {path: store.seen(version, path) for path in version.paths if path not in damaged}
    spool = folders_of(config, os.environ).spool
    with (
        interruptible() as waiter,
        no_sync_begins(config, waiter),
        scratch_folder(spool) as scratch,
        open_home(config, waiter, scratch) as home,
    ):
        plan = write(home, with_texts(home, plan_of_version(home, version.bases, there)))
        with suppress(NeedsPerson, OSError):  # no sandbox is known, or the state has no room: all is written
            found = {each.path: version.id for each in plan.of(PathOutcome.CONFLICT)}
            OpenConflicts(home.db, target_of(config, os.environ).owner).note(found, there.__contains__)
    code = tell_end(plan, plan_lines(plan), as_json=as_json)
    if code is ExitCode.DIFFERENT and not as_json:
        click.echo(hinted("`syncd resolve` decides"), err=True)
    return ExitCode.DIFFERENT if damaged else code


def undo_and_tell(config: Config, sandbox: str | None, *, as_json: bool) -> int:
    """Take the last `apply` back while no sync is under way, and say what became of each path.

    Raises `click.UsageError` if a `sandbox` is named and the last one was of another.
    """
    with interruptible() as waiter, open_home(config, waiter) as home:
        last = home.writer.killed or home.writer.last
        if sandbox is not None and last is not None and sandbox != last.sandbox:
            raise click.UsageError(f"The last `apply` was of {last.sandbox}; `syncd apply --undo` takes that one back.")
        with no_sync_begins(written_config(config, last), waiter):  # a stop leaves nothing half undone
            undone = home.writer.undo(home.rules().exclude)
            if undone.done:
                note_done("all was taken back", "nothing is left to do")
    if as_json:
        click.echo(json.dumps({**lists_of(Plan()), "stays": undone.left, "undone": undone.done}))
        return ExitCode.DONE
    for path in undone.done:
        click.echo(f"undone    {shown_path(path)}")
    for path in undone.left:
        click.echo(f"stays     {shown_path(path)}: {WHY_LEFT}")
    count = counted(len(undone.done), "path")
    click.echo(f"{count} as before the apply" if undone.done else "nothing to undo")
    return ExitCode.DONE


# -- what is said


def tell_end(plan: Plan, lines: Iterable[str] = (), *, prefix: str = "", as_json: bool) -> ExitCode:
    """Print the lines, and the end of an `apply`, or all as JSON, and return its exit code.

    Raises `TryLater` if something could not be fetched.
    """
    for line in [json.dumps(lists_of(plan))] if as_json else [*lines, summary_line(plan, prefix)]:
        click.echo(line)
    if plan.of(PathOutcome.CONFLICT):
        return ExitCode.DIFFERENT
    if failure := not_fetched(plan):
        raise failure
    return ExitCode.DONE
