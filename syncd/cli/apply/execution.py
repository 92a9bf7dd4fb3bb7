"""Carries out an `apply`, its undo, or a saved version's way home: shows, asks and tells what became of each path."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

import click

from syncd.cli.agent_side import (
    look_at,
    no_sync_begins,
    open_home,
    open_sandbox,
    scratch_folder,
    take_back_killed,
    tell_excluded,
    written_config,
)
from syncd.cli.apply.plan_text import (
    lists_of,
    new_conflicts,
    plan_lines,
    runs_automatically,
    summary_line,
)
from syncd.cli.options import CLOCK, answered, hinted, is_named, note_done
from syncd.cli.output import paged, print_error
from syncd.core.errors import ExitCode, NeedsPerson, SyncdError
from syncd.core.interrupt import Interrupt, interrupting
from syncd.core.settings import Config
from syncd.core.text import counted, few, shown_path
from syncd.core.waiter import Waiter
from syncd.daemon.build import folders_of, target_of
from syncd.merge.home import (
    AgentSide,
    bring_home,
    make_plan,
    plan_of_version,
    save_conflicts,
    with_texts,
    write,
)
from syncd.merge.workspace_writer import OpenConflicts
from syncd.model.reconcile import CHANGES, PathOutcome, Plan
from syncd.sandbox.saved_versions import SavedVersion, SavedVersions
from syncd.selection.selection import PathPatterns

# A person is shown a longer plan page by page.
_MOST_LINES = 30


def apply(
    config: Config,
    named: tuple[str, ...],
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
    if not dry_run:
        take_back_killed(config)
    with open_sandbox(config) as opened:
        side = look_at(opened, PathPatterns(included) if included else None)
        plan = with_texts(side.home, make_plan(side, side.local(), is_wanted, deletions=deletions))
        lines = [*plan_lines(plan)]
        if asks and len(lines) > _MOST_LINES:
            paged(f"{line}\n".encode("utf-8", "backslashreplace") for line in lines)
        elif not as_json:
            print_lines(lines)
        tell_excluded(side, "not applied but with --include")
        automatic = [path for path in sorted(side.work.excluded) if is_wanted(path) and runs_automatically(path)]
        if automatic:
            names = few([*map(shown_path, automatic)], len(automatic))
            click.echo(f"of these, some may run by themselves here: {', '.join(names)}", err=True)
        if dry_run:
            return tell_end(plan, "would be: ", as_json=as_json)
        # Nothing else waits for the answer.
        if asks and plan.of(*CHANGES) and not _agreed(side, named, plan, opened.access.waiter):
            click.echo("nothing was changed", err=True)
            return ExitCode.DIFFERENT if plan.of(PathOutcome.CONFLICT) else ExitCode.DONE
        with no_sync_begins(config, opened.access.waiter):
            done = bring_home_and_save(side, plan, is_wanted)
    if not as_json:
        print_lines(plan_lines(new_conflicts(plan, done)))
    code = tell_end(done, as_json=as_json)
    if code is ExitCode.DIFFERENT and not as_json:
        # `resolve` writes to no path that the rules exclude.
        excluded = all(side.rules.exclude(each.path, each.here.is_directory) for each in done.of(PathOutcome.CONFLICT))
        decides = "" if excluded else ": `syncd resolve` decides"
        what = f"the sandbox's versions of the conflicts are saved (`syncd saved`){decides}"
        click.echo(hinted(what), err=True)
    return code


def bring_home_and_save(side: AgentSide, plan: Plan, is_covered: Callable[[str], bool] = lambda _: False) -> Plan:
    """Write, save the conflicts, and return the plan as it turned out. A stop in between says that all was written.

    What it covers and is no conflict waits no more.
    """
    done = bring_home(side, plan)
    if done.of(*CHANGES, PathOutcome.WRITE):
        note_done("all was written", "`syncd apply --undo` takes it back")
    save_conflicts(side, done, is_covered)
    return done


def _agreed(side: AgentSide, named: tuple[str, ...], plan: Plan, waiter: Waiter) -> bool:
    """True if a person wants the plan carried out; the diff is shown to one who asks for it. Raises `Stop`."""
    asked = f"{summary_line(plan)}. Apply {len(plan.of(*CHANGES)):,}? [y/d/N]:"
    while (answer := answered(asked, ("y", "yes", "d", "diff", "n", "no", ""), waiter)) in ("d", "diff"):
        from syncd.cli.diff import show  # noqa: PLC0415 - for this answer alone

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
        no_sync_begins(config),
        scratch_folder(spool) as scratch,
        open_home(config, scratch) as home,
    ):
        plan = write(home, with_texts(home, plan_of_version(home, version.bases, there)))
        with suppress(NeedsPerson, OSError):  # no sandbox is known, or the state has no room: all is written
            found = {each.path: version.id for each in plan.of(PathOutcome.CONFLICT)}
            OpenConflicts(home.db, target_of(config, os.environ).owner).note(found, there.__contains__)
    if not as_json:
        print_lines(plan_lines(plan))
    code = tell_end(plan, as_json=as_json)
    return ExitCode.DIFFERENT if damaged else code


def undo_and_tell(config: Config, sandbox: str | None, *, as_json: bool) -> int:
    """Take the last `apply` back while no sync is under way, and say what became of each path.

    Raises `click.UsageError` if a `sandbox` is named and the last one was of another.
    """
    waiter = Waiter(Interrupt(), CLOCK)
    with open_home(config) as home:
        last = home.writer.killed or home.writer.last
        if sandbox is not None and last is not None and sandbox != last.sandbox:
            raise click.UsageError(f"The last `apply` was of {last.sandbox}; `syncd apply --undo` takes that one back.")
        # A stop leaves nothing half undone.
        with interrupting(waiter.interrupt), no_sync_begins(written_config(config, last), waiter):
            undone = home.writer.undo(home.rules().exclude)
            if undone.done:
                note_done("all was taken back", "nothing is left to do")
    if as_json:
        click.echo(json.dumps({**lists_of(Plan()), "stays": undone.left, "undone": undone.done}))
        return ExitCode.DONE
    for path in undone.done:
        click.echo(f"undone    {shown_path(path)}")
    for path in undone.left:
        click.echo(f"stays     {shown_path(path)}: changed since the apply, or excluded by a rule")
    count = counted(len(undone.done), "path")
    click.echo(f"{count} as before the apply" if undone.done else "nothing to undo")
    return ExitCode.DONE


# -- what is said


def tell_end(plan: Plan, prefix: str = "", *, as_json: bool) -> ExitCode:
    """Print the end of an `apply`, and return its exit code."""
    click.echo(json.dumps(lists_of(plan)) if as_json else f"{prefix}{summary_line(plan)}")
    return ExitCode.DIFFERENT if plan.of(PathOutcome.CONFLICT) else ExitCode.DONE


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on stdout."""
    for line in lines:
        click.echo(line)
