"""`syncd sandbox add` and `remove`: further sandboxes of a workspace, by their names in its configuration."""

from __future__ import annotations

import contextlib
import os
import sys

import click

from syncd.cli.config.writer import change_config, with_value, without
from syncd.cli.options import CLOCK, config_option, config_path, configured, confirmed, option_for
from syncd.core.choices import AgentChanges
from syncd.core.errors import NeedsPerson, SandboxNotFound, TryLater
from syncd.core.interrupt import Interrupt, interrupting
from syncd.core.settings import MAIN, AcquireKeys, Config, check_name, table_of
from syncd.core.text import one_line
from syncd.core.waiter import Waiter
from syncd.remote.failure import StepFailed


@click.command("add")
@click.argument("name", metavar="NAME")
@click.option("--id", "sandbox_id", metavar="ID", help="The sandbox, which is there already.")
@click.option("--acquire", is_flag=True, help="Have one acquired, and another one when it expires.")
@config_option
def add(name: str, sandbox_id: str | None, acquire: bool, config_file: str | None) -> None:
    """Sync the workspace to one more sandbox, for one more agent.

    The configuration gets a table [sandboxes.NAME], of which all other keys can be set. A running daemon reads it and
    sends the new one everything; no other sandbox notices.
    """
    if acquire == (sandbox_id is not None):
        raise click.UsageError("Name the sandbox with --id, or have one acquired with --acquire.")
    path, config = config_path(config_file), configured(config_file)
    check_name(name)
    if name in config.sandboxes:
        raise click.UsageError(f"There is a sandbox named {name!r}; `syncd sandbox remove {name}` removes it.")
    if sandbox_id is not None:
        _refuse_known(config, sandbox_id)
        change_config(path, lambda text: with_value(text, f"{table_of(name)}.id", sandbox_id))
    else:
        lifetime_s = (config.sandboxes[MAIN].acquire or AcquireKeys()).ttl_seconds
        change_config(path, lambda text: with_value(text, f"{table_of(name)}.acquire.ttl_seconds", lifetime_s))
    click.echo(f"added {name}{f': {one_line(sandbox_id)}' if sandbox_id else ''}")
    if not _reload(config):
        click.echo(f"the next sync fills it: `syncd push --sandbox {name}{option_for(path)}`", err=True)


@click.command("remove")
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Do not ask, and remove it although something there could not be saved.")
@config_option
def remove(name: str, yes: bool, force: bool, config_file: str | None) -> None:
    """Sync the workspace to this sandbox no more.

    What the agent changed there is saved before (`syncd saved`), but not with agent_changes = "overwrite"; if something
    cannot be saved, nothing is removed (75), with --force it is. A sandbox that syncd acquired is released; another one
    goes on with all that is in it. The table [sandboxes.NAME] goes from the configuration.
    """
    from syncd.cli.sandbox.admin import sandbox_admin_of  # noqa: PLC0415 - `--help` needs none of it

    path, config = config_path(config_file), configured(config_file)
    if name == MAIN or name not in config.sandboxes:
        others = ", ".join(each for each in config.sandboxes if each != MAIN) or "none"
        raise click.UsageError(f"{name!r} is no further sandbox of this workspace; name one of {others}.")
    own = config.for_sandbox(name)
    if not (yes or force):
        if not sys.stdin.isatty():
            raise click.UsageError("There is no terminal to ask on; use --yes.")
        waiter = Waiter(Interrupt(), CLOCK)
        with interrupting(waiter.interrupt):
            if not confirmed(f"Remove {name}? What the agent changed there is saved here before.", waiter, err=True):
                click.echo("nothing was removed", err=True)
                return
    with sandbox_admin_of(own) as admin:
        acquired = admin.acquired
        if admin.ours is not None and own.sandbox.agent_changes is not AgentChanges.OVERWRITE:
            left = _saved(own)
            if left and not force:
                raise TryLater(f"{name} is not removed: {left}", "try again, or give that up with --force")
            if left:
                click.echo(left, err=True)
        change_config(path, lambda text: without(text, table_of(name)))
        _reload(config)
        if acquired is not None:
            with contextlib.suppress(OSError):
                admin.store.save(None, [])
            try:
                admin.account.release(acquired.sandbox_id)
            except StepFailed as failure:
                if failure.refusal is not SandboxNotFound:
                    raise
    click.echo(f"removed {name}{f', and released {one_line(acquired.sandbox_id)}' if acquired is not None else ''}")


def _saved(config: Config) -> str:
    """Save what the agent changed; return what a person must know before the sandbox is left."""
    from syncd.cli.agent_side import save_before_release  # noqa: PLC0415

    try:
        return save_before_release(config)
    except (StepFailed, NeedsPerson) as failure:
        return f"nobody could look for what an agent changed there ({failure})"


def _refuse_known(config: Config, sandbox_id: str) -> None:
    """Raise `ConfigError` if another workspace's configuration has that sandbox; that of this one is checked anyway."""
    from msgspec.structs import replace  # noqa: PLC0415

    from syncd.daemon.shared_sandbox import conflict, others_naming  # noqa: PLC0415

    wanted = replace(config, sandbox=replace(config.sandboxes[MAIN], id=sandbox_id, acquire=None))
    others = others_naming(wanted, os.environ)
    if others:
        raise conflict(wanted, others)


def _reload(config: Config) -> bool:
    """Have a running daemon read the configuration anew; false if none runs."""
    from syncd.cli.daemon_client import order_daemon  # noqa: PLC0415

    return order_daemon(config, {"do": "reload"})
