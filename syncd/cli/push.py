"""`syncd push`, `flush` and `setup`: a sync or a set-up on request, by the daemon if one runs, else by themselves."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from syncd.cli.daemon_client import RETRY_S, STARTS_S, ask_daemon
from syncd.cli.options import (
    CLOCK,
    config_option,
    configured,
    configured_for,
    hinted,
    keeper,
    no_setup_option,
    of_sandbox,
    option_for,
    sandbox_option,
    sandbox_options,
)
from syncd.cli.output import verbosity, verbosity_options
from syncd.cli.progress import ProgressDisplay
from syncd.core.directories import directories_for, holder
from syncd.core.errors import ExitCode, Locked, Stop, TryLater
from syncd.core.settings import Config
from syncd.core.text import counted, few, for_sandbox, shown_path, size
from syncd.daemon.control import Message

# What is over sooner shows nothing.
_SILENT_S = 1.0
_SETTING_UP = "setting up"


@click.command("push")
@click.option("--force", is_flag=True, help="Even if nothing changed, or nearly all is gone.")
@no_setup_option
@sandbox_options
@verbosity_options
def command(config_file: str | None, force: bool, sandbox: str | None, no_setup: bool, as_json: bool) -> None:
    """Sync once, now, and wait until the sandbox has it.

    \b
    syncd push
    syncd push --force    even if nothing changed

    It waits for `sandbox.setup` too. Exit code 75: the set-up failed, or a file changes each time that it is read.
    \f

    Where nothing has to be sent, the sandbox is asked if it still has what was sent, and filled if it was emptied. What
    changes while it is read is sent once more, twice at most; if it still changes, it is named. `--force` reads every
    file.
    """
    config = of_sandbox(configured(config_file), sandbox)
    with ProgressDisplay() as progress:
        request = {"do": "push", "force": force, "sandbox": sandbox, "no_setup": no_setup}
        result = sync_now(config, request, progress)
    if as_json or verbosity() >= 0:
        rows = result.get("sandboxes", ())
        lines = [f"{row['name']}: {summary(row)}" for row in rows] or [summary(result)]
        click.echo(json.dumps(result) if as_json else "\n".join(lines))
    _tell_agents_side(result)
    is_first = result["sync"] is not None and result.get("change") is None
    has_daemon = holder(directories_for(config.workspace.path, os.environ).state) is not None
    if is_first and not has_daemon and not as_json and verbosity() >= 0:
        command_line = keeper(option_for(config.file))
        click.echo(f"next: `{command_line}` keeps it in sync from now on", err=True)


@click.command("flush")
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Give up after this long.",
)
@no_setup_option
@sandbox_options
@verbosity_options
def flush(config_file: str | None, timeout_s: float | None, sandbox: str | None, no_setup: bool, as_json: bool) -> None:
    """Wait until all that is on disk now is in the sandbox.

    \b
    syncd flush && start-the-agent
    syncd flush --timeout 60         75 if that takes longer

    Ends with 75 as well while syncing is paused, where a file changes each time that it is read, and where
    `sandbox.setup` failed. Held and saved paths are named on stderr: they are no failure.
    \f

    After a second it says on stderr what it waits for. The last lines of a set-up that failed are on stderr.
    """
    if timeout_s is not None and math.isnan(timeout_s):
        raise click.UsageError("--timeout needs a number of seconds.")
    config = of_sandbox(configured(config_file), sandbox)
    with ProgressDisplay(silent_s=_SILENT_S) as progress:
        result = sync_now(config, {"do": "flush", "sandbox": sandbox, "no_setup": no_setup}, progress, timeout_s)
    if as_json:
        click.echo(json.dumps(result))
    _tell_agents_side(result)


@click.command("setup")
@config_option
@sandbox_option
@verbosity_options
def setup(config_file: str | None, sandbox: str | None) -> ExitCode:
    """Run `sandbox.setup` in the sandbox now, and show its output.

    \b
    syncd setup && start-the-agent
    syncd setup --sandbox review    that of one of several

    It ends with 0 if the program there did, and with 1 if that failed, took too long, or was ended by the service. It
    is run by the daemon, or by this command where none runs; one that is running already is waited for first.
    """
    config = configured_for(config_file, sandbox)
    with ProgressDisplay(silent_s=_SILENT_S, output=sys.stdout) as progress:
        result = sync_now(config, {"do": "setup", "sandbox": config.sandbox_name}, progress)
    if result["why"]:
        click.echo(hinted(f"the set-up {result['why']}; `syncd status` names it until one succeeds"), err=True)
    return ExitCode.DIFFERENT if result["why"] else ExitCode.DONE


def _tell_agents_side(result: Mapping[str, Any]) -> None:
    """Name on stderr the paths that stay as they are in the sandbox, or in each of several, and what was saved."""
    sys.stdout.flush()
    for row in result.get("sandboxes", ()) or (result,):
        name, named = row.get("name"), row.get("held", ())
        there = f" {name}" if name else ""
        resolve, lists = (
            for_sandbox(each, name) if name else hinted(each) for each in ("`syncd resolve`", "`syncd saved`")
        )
        for path in named:
            click.echo(f"held: {shown_path(path)} stays in the sandbox{there} as it is: {resolve} decides", err=True)
        more = row.get("held_count", 0) - len(named)
        if more > 0:
            click.echo(f"held: {counted(more, 'more path')}{there and f' in{there}'}: {resolve} decides", err=True)
        if saved := ", ".join(few([*map(shown_path, row.get("saved", ()))], row.get("saved_count", 0))):
            click.echo(f"saved: what the sandbox{there} had of {saved}: {lists} lists it", err=True)


def summary(result: Mapping[str, Any]) -> str:
    """The result in one line, for people."""
    sync = result["sync"]
    if sync is None and result.get("held"):
        return "nothing was sent: the sandbox holds all but what is held"
    if sync is None:
        files = "the one file" if result["files"] == 1 else f"all {result['files']:,} files"
        return f"nothing to do: the sandbox holds {files}"
    change, kinds = result.get("change") or {}, {"added": "new", "changed": "changed", "removed": "removed"}
    words = ", ".join(f"{change[name]:,} {word}" for name, word in kinds.items() if change.get(name))
    sent = size(sync["archive_bytes"])
    # Of a first sync, and of one without changes, all was sent.
    what = f"{words}, {sent}, {sync['files']:,} in all" if words else f"{counted(sync['files'], 'file')}, {sent}"
    return f"synced {what}, in {sync['seconds']:.2f} s"


# -- by the daemon, or by this process


def sync_now(
    config: Config, request: Message, display: ProgressDisplay, timeout_s: float | None = None
) -> dict[str, Any]:
    """The result of a request for a sync: by the daemon, or by this process where none runs; one may start meanwhile.

    Raises `SyncdError`; that of an interrupt says what state it leaves.
    """
    began_s = CLOCK.monotonic_s()
    ends_s = began_s + min(STARTS_S, timeout_s or STARTS_S)

    def left_s() -> float | None:
        # A timer of no time would never go off.
        return None if timeout_s is None else max(0.001, began_s + timeout_s - CLOCK.monotonic_s())

    while True:
        try:
            try:
                answer = ask_daemon(config, request, left_s(), display)
            except Stop:
                what = f"stopped waiting ({display.doing_now}); the daemon goes on"
                raise TryLater(what, "see `syncd status`") from None
            if answer is not None:
                return answer
            from syncd.cli.own_loop import sync_alone  # noqa: PLC0415 - where no daemon runs

            return sync_alone(config, display, request, left_s())
        except Locked:
            if CLOCK.monotonic_s() >= ends_s:
                raise
        except TimeoutError:
            what = f"not done after {timeout_s:g} s ({display.doing_now})"
            raise TryLater(what, "give it more time; a daemon goes on by itself") from None
        except Stop:
            raise _stopped(display.doing_now) from None
        CLOCK.sleep(RETRY_S)


def _stopped(doing: str) -> TryLater:
    """The error of an interrupt. An interrupted upload changes nothing: only initialize changes the sandbox."""
    if doing.startswith(_SETTING_UP):
        return TryLater(f"stopped while {doing}, which may go on there", hinted("`syncd setup` runs it again"))
    if doing.startswith("unpacking"):
        return TryLater(f"stopped while {doing}, which may be done all the same", "`syncd push` makes sure")
    return TryLater(f"stopped while {doing}; the sandbox is unchanged", "`syncd push` sends it")
