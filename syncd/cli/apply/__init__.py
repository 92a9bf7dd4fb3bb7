"""`syncd apply`: brings home what was changed in the sandbox, so that it can be reviewed, merged and undone."""

from __future__ import annotations

import sys
from typing import Any

import click

from syncd.cli.options import (
    all_option,
    config_option,
    configured,
    configured_for_each,
    json_option,
    named_paths,
    refuse_elsewhere,
    sandbox_option,
    stoppable,
)


@click.command("apply")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(readable=False))
@click.option("--dry-run", is_flag=True, help="Show the plan, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--deletions", is_flag=True, help="Delete here what was deleted in the sandbox.")
@click.option(
    "--include",
    "patterns",
    metavar="PATTERN",
    multiple=True,
    help="Take excluded paths too that match it.",
)
@click.option("--branch", metavar="NAME", help="Put them on a new branch of git; nothing here changes.")
@click.option("--undo", is_flag=True, help="Take back the last `apply`, of whichever sandbox.")
@sandbox_option
@all_option
@json_option
@config_option
def command(
    paths: tuple[str, ...], config_file: str | None, branch: str | None, sandbox: str | None, **flags: Any
) -> int:
    """Bring home what was changed in the sandbox since syncd put it there.

    \b
    syncd apply                      shows the plan, and asks
    syncd apply --branch agent       its commits, and the rest, on a branch of git
    syncd apply --undo

    What only the sandbox changed is taken, texts that both sides changed are merged. Else it is a conflict: yours
    stays, its version is saved (`syncd saved`), and the exit code is 1. All is written, or nothing is.
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
    # Each of these loads what asks the sandbox, which `--help` and a TAB need not wait for.
    with stoppable():
        if undo:
            from syncd.cli.apply.execution import undo_and_tell  # noqa: PLC0415

            return undo_and_tell(config, sandbox, as_json=as_json)
        if branch is not None:
            from syncd.cli.apply.branch import apply_to_branches  # noqa: PLC0415

            return apply_to_branches(configs, branch, named, patterns, as_json=as_json)
        from syncd.cli.apply.execution import apply  # noqa: PLC0415

        asks = not (flags["yes"] or as_json or dry_run) and sys.stdin.isatty() and sys.stdout.isatty()
        return apply(config, named, patterns, deletions=deletions, dry_run=dry_run, as_json=as_json, asks=asks)
