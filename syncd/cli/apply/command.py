"""`syncd apply`: brings home what was changed in the sandbox, so that it can be reviewed, merged and undone."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from syncd.cli.options import config_option, configured, in_workspace, json_option
from syncd.core.errors import ExitCode, Stop, TryLater, WorkspaceError
from syncd.core.settings import Config
from syncd.core.text import shown_path

if TYPE_CHECKING:
    from syncd.cli.agent_side import AgentSide
    from syncd.model.reconcile import Home, Plan

_TOLD_AFTER_S = 2.0


class ApplyOptions(Struct, frozen=True):
    """The wishes of the person. `named` are paths of the workspace, all if there are none."""

    named: tuple[str, ...]
    included: tuple[str, ...]
    deletions: bool
    dry_run: bool
    as_json: bool
    asks: bool


@click.command("apply")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path())
@click.option("--dry-run", is_flag=True, help="Show the plan, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--deletions", is_flag=True, help="Delete here what was deleted in the sandbox.")
@click.option(
    "--include",
    "patterns",
    metavar="PATTERN",
    multiple=True,
    help="Take paths too that the workspace's rules leave out.",
)
@click.option("--branch", metavar="NAME", help="Put the changes on a new branch of git, and leave the workspace alone.")
@click.option("--undo", is_flag=True, help="Take back the last `apply`.")
@json_option
@config_option
def command(paths: tuple[str, ...], config_file: str | None, branch: str | None, **flags: Any) -> int:
    """Bring home what was changed in the sandbox since syncd put it there.

    Of PATHs, if any, with what is below them. What only the sandbox changed is taken. Texts that both sides changed are
    merged. What cannot be merged is a conflict: it stays as it is here, and the sandbox's version is saved (`syncd
    saved`). On a terminal the plan is shown first. All is written, or nothing is, and --undo takes it back.

    With --branch, the agent's own commits (`syncd log`) are made anew on the branch, and what it did not commit is one
    more.

    Exits with 0 if all was taken, or if there was nothing to take; with 1 if conflicts are left.

    --json: taken, merged, deleted, conflicts, never, stays, undone, look_at, newly_sent; each a list of paths. A person
    should look at those of look_at before they are used; those of newly_sent stay home now, and would be sent by the
    ignore files that are taken.
    """
    undo, dry_run, deletions, patterns = flags["undo"], flags["dry_run"], flags["deletions"], flags["patterns"]
    if undo and (paths or patterns or branch or dry_run or deletions):
        raise click.UsageError("--undo goes with no other option but --json and --config.")
    if branch is not None and (dry_run or deletions):
        raise click.UsageError("--branch goes with neither --dry-run nor --deletions.")
    config = configured(config_file)

    try:
        named = tuple(in_workspace(config, path) for path in paths)
    except WorkspaceError as failure:
        raise click.UsageError(str(failure)) from None
    as_json = flags["as_json"]
    asks = not (flags["yes"] or as_json or dry_run) and sys.stdin.isatty() and sys.stdout.isatty()
    options = ApplyOptions(named, patterns, deletions, dry_run, as_json, asks)
    try:
        if undo:
            return _undo(config, as_json)
        if branch is not None:
            from syncd.cli.apply.branch import apply_to_branch  # noqa: PLC0415

            return apply_to_branch(config, options, branch)
        return _apply(config, options)
    except (Stop, KeyboardInterrupt, click.Abort):
        raise TryLater("stopped; nothing was changed", "the same command begins anew") from None


def _apply(config: Config, options: ApplyOptions) -> int:
    from syncd.cli.agent_side import agent_side, patterns_of, scratch_folder, tell_left_out  # noqa: PLC0415
    from syncd.cli.apply.execution import carry_out, prepare  # noqa: PLC0415
    from syncd.cli.apply.newly_sent import newly_sent, newly_sent_line, newly_sent_text  # noqa: PLC0415
    from syncd.cli.apply.plan_text import (  # noqa: PLC0415
        changes_something,
        new_conflicts,
        plan_lines,
        summary_line,
    )
    from syncd.merge.git import find_git  # noqa: PLC0415
    from syncd.model.reconcile import PathOutcome  # noqa: PLC0415

    if not options.dry_run:
        _take_back_killed(config)
    with (
        agent_side(config, patterns_of(options.included)) as side,
        scratch_folder(side.folders.spool) as folder,
    ):
        prepared = prepare(side, make_plan(side, options), find_git(os.environ), folder)
        plan, let_out = prepared.plan, newly_sent(config, prepared)
        if not options.as_json:
            _print(plan_lines(plan))
            _print(iter([newly_sent_line(let_out)] if let_out else []))
        tell_left_out(side, "not taken but with --include")
        if options.dry_run:
            return _end(plan, let_out, options, "would be: ")
        if options.asks and changes_something(plan):
            question = "; ".join([summary_line(plan), *([newly_sent_text(let_out)] if let_out else [])])
            with side.interrupt.region():  # nothing waits for the answer
                is_wanted = click.confirm(f"{question}: apply this?")
            if not is_wanted:
                click.echo("nothing was changed", err=True)
                return ExitCode.DIFFERENT if plan.of(PathOutcome.CONFLICT) else ExitCode.DONE
        with no_sync_begins(config, side.interrupt.check):
            done = carry_out(side, prepared)
        if not options.as_json:
            _print(plan_lines(new_conflicts(plan, done)))
        return _end(done, let_out, options, "")


def _take_back_killed(config: Config) -> None:
    from syncd.cli.agent_side import writer_of  # noqa: PLC0415

    with no_sync_begins(config):  # and what is looked at is not half of a sync
        taken_back = writer_of(config).finish_interrupted()
    if taken_back.restored:
        click.echo(f"took back an apply that was killed: {len(taken_back.restored):,} paths", err=True)


def make_plan(side: AgentSide, options: ApplyOptions) -> Plan:
    """Return the plan for the paths that were named."""
    from syncd.cli.agent_side import is_named  # noqa: PLC0415
    from syncd.model.reconcile import PathOutcome, Sides, plan_home  # noqa: PLC0415

    there = {path: entry for path, entry in side.work.changed.items() if is_named(path, options.named)}
    base = {path: entry for path in there if (entry := side.work.base_of(path)) is not None}
    plan = plan_home(Sides(base, side.local(), there), home_of(side.config, deletions=options.deletions))
    if not side.is_unanswered:
        return plan
    # A reset or a removal of ours may be why it is gone.
    gone = [each.path for each in plan.of(PathOutcome.DELETE)]
    return plan.with_outcome(gone, PathOutcome.STAYS, "the last sync was not answered: run `syncd push` first")


def home_of(config: Config, *, deletions: bool = False) -> Home:
    """Return what a plan for this workspace needs to know of it."""
    from syncd.model.reconcile import Home  # noqa: PLC0415

    def link_at(path: str) -> str | None:
        try:
            return os.readlink(os.path.join(config.workspace.path, path))
        except OSError:
            return None

    def names_in(path: str) -> Collection[str]:
        try:
            return os.listdir(os.path.join(config.workspace.path, path))
        except OSError:
            return ()  # it is written to by its own rules

    return Home(deletions, link_at, names_in)


def _end(plan: Plan, let_out: list[str], options: ApplyOptions, prefix: str) -> int:
    from syncd.cli.apply.plan_text import summary_line  # noqa: PLC0415
    from syncd.model.reconcile import PathOutcome  # noqa: PLC0415

    conflicts = plan.of(PathOutcome.CONFLICT)
    if options.as_json:
        print_plan(plan, let_out)
    else:
        click.echo(f"{prefix}{summary_line(plan)}")
        if conflicts and not options.dry_run:
            click.echo("the sandbox's versions of the conflicts are saved: see `syncd saved`", err=True)
    return ExitCode.DIFFERENT if conflicts else ExitCode.DONE


def print_lists(**lists: Iterable[str]) -> None:
    """Print the lists of paths that `--json` has; those that are not given are empty."""
    names = ("taken", "merged", "deleted", "conflicts", "never", "stays", "undone", "look_at", "newly_sent")
    click.echo(json.dumps({name: list(lists.get(name, ())) for name in names}))


def print_plan(plan: Plan, let_out: list[str]) -> None:
    """Print the paths of a plan as JSON, by what becomes of them."""
    from syncd.cli.apply.execution import paths_of  # noqa: PLC0415
    from syncd.cli.apply.plan_text import to_look_at  # noqa: PLC0415
    from syncd.model.reconcile import PathOutcome  # noqa: PLC0415

    print_lists(
        taken=paths_of(plan, PathOutcome.TAKE),
        merged=paths_of(plan, PathOutcome.MERGE),
        deleted=paths_of(plan, PathOutcome.DELETE),
        conflicts=paths_of(plan, PathOutcome.CONFLICT),
        never=paths_of(plan, PathOutcome.NEVER),
        stays=paths_of(plan, PathOutcome.STAYS, PathOutcome.DELETED_THERE),
        look_at=to_look_at(plan),
        newly_sent=let_out,
    )


def _undo(config: Config, as_json: bool) -> int:
    from syncd.cli.apply.undoing import undo  # noqa: PLC0415

    with no_sync_begins(config):
        undone = undo(config)
    if as_json:
        print_lists(stays=undone.left, undone=undone.restored)
        return ExitCode.DONE
    _print(f"undone    {shown_path(path)}" for path in undone.restored)
    _print(f"stays     {shown_path(path)}: changed since the apply, or left out by a rule" for path in undone.left)
    count = "1 path" if len(undone.restored) == 1 else f"{len(undone.restored):,} paths"
    click.echo(f"{count} as before the apply" if undone.restored else "nothing to undo")
    return ExitCode.DONE


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        click.echo(line)


@contextlib.contextmanager
def no_sync_begins(config: Config, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep the daemon from syncing meanwhile, or any other process, if none runs.

    A sync of the daemon that is under way is waited for; `check` may end that. Raises `Locked`, `TryLater`.
    """
    from syncd.cli.options import CLOCK  # noqa: PLC0415
    from syncd.core.workspace_lock import Lock  # noqa: PLC0415
    from syncd.daemon.build import folders_of  # noqa: PLC0415
    from syncd.daemon.control import writing  # noqa: PLC0415

    folder = folders_of(config, os.environ).state
    told = False

    def waiting(waited_s: float) -> None:
        nonlocal told
        check()
        if not told and waited_s > _TOLD_AFTER_S:
            told = True
            click.echo("a sync is under way: waiting for its end, as it may take minutes", err=True)

    with ExitStack() as stack:
        if not stack.enter_context(writing(folder, CLOCK, waiting)):
            lock = Lock(folder)
            lock.acquire()
            stack.callback(lock.release)
        yield
