"""`syncd sandbox`: lists, shows, acquires and releases the account's sandboxes."""

from __future__ import annotations

import json
import sys

import click

from syncd.cli.options import CLOCK, config_option, configured, json_option
from syncd.core.choices import AgentChanges
from syncd.core.errors import SandboxNotFound, TryLater


@click.group("sandbox")
def command() -> None:
    """Look after the account's sandboxes."""


@command.command("list")
@config_option
@json_option
def list_(config_file: str | None, as_json: bool) -> None:
    """List what the account has now; * marks the one that this workspace goes to.

    --json: sandboxes, each with id, state, created_at, servers (names), in_use and expires_at (null where not known).
    """
    from syncd.cli.sandbox.admin import sandbox_admin_of  # noqa: PLC0415 - `sandbox --help` needs none of it
    from syncd.cli.sandbox.screen import list_lines, row_of  # noqa: PLC0415

    with sandbox_admin_of(configured(config_file)) as admin:
        rows = [row_of(info, admin.ours, admin.ends_at) for info in admin.request(admin.account.sandboxes)]
    if as_json:
        click.echo(json.dumps({"sandboxes": rows}))
        return
    for line in list_lines(rows, CLOCK.wall_s()):
        click.echo(line)


@command.command("show")
@click.argument("sandbox_id", metavar="[ID]", required=False)
@config_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "env", "mcp"]),
    default="text",
    show_default=True,
    help="For people; one JSON document; `export` lines for a shell; JSON for an MCP client.",
)
def show(sandbox_id: str | None, config_file: str | None, form: str) -> None:
    """Show a sandbox as the API knows it, with its MCP servers' URLs; without an ID this workspace's.

    \b
    eval "$(syncd sandbox show --format env)"       $SYNCD_MCP_FILESYSTEM and others
    syncd sandbox show --format mcp >mcp.json       for an MCP client

    The URLs may hold tokens.
    """  # noqa: D301 - "\b" is click's own mark: what follows stays in its lines
    from syncd.cli.sandbox.admin import sandbox_admin_of  # noqa: PLC0415
    from syncd.cli.sandbox.screen import shown  # noqa: PLC0415

    with sandbox_admin_of(configured(config_file)) as admin:
        wanted = admin.resolve(sandbox_id)
        info = admin.request(lambda: admin.api(wanted).sandbox())
        ends_at = admin.ends_at if wanted == admin.ours else None
    click.echo(shown(info, ends_at, form, CLOCK.wall_s()), nl=False)


@command.command("acquire")
@config_option
@click.option("--new", is_flag=True, help="Even if the one that is in use is alive, which is then left to its end.")
@click.option("--server", "servers", metavar="NAME", multiple=True, help="A server of a new one; may be repeated.")
@click.option("--ttl", "ttl_seconds", metavar="SECONDS", type=click.IntRange(60, 86_400), help="How long it lives.")
@json_option
def acquire(
    config_file: str | None, new: bool, servers: tuple[str, ...], ttl_seconds: int | None, as_json: bool
) -> None:
    """Acquire a sandbox, unless the one that syncd acquired is alive; at most three in ten minutes.

    With [sandbox.acquire] the next sync goes there, and its keys are the defaults of the options. With sandbox.id the
    new one is only named: nothing goes there before its id is in the configuration.

    --json: id, expires_at, servers (URLs by name), new.
    """
    from syncd.cli.sandbox.admin import sandbox_admin_of  # noqa: PLC0415
    from syncd.cli.sandbox.screen import acquired_lines, acquired_row  # noqa: PLC0415

    with sandbox_admin_of(configured(config_file)) as admin:
        acquired_sandbox = None if new else admin.current()
        is_new = acquired_sandbox is None
        acquired_sandbox = acquired_sandbox or admin.acquire(servers, ttl_seconds)
        fixed = admin.fixed
    row = acquired_row(acquired_sandbox, new=is_new)
    if as_json:
        click.echo(json.dumps(row))
        return
    for line in acquired_lines(row, CLOCK.wall_s(), fixed=fixed):
        click.echo(line)


@command.command("release")
@click.argument("sandbox_id", metavar="[ID]", required=False)
@config_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Do not ask, and release it although something there could not be saved.")
@click.option("--unsaved", is_flag=True, help="Do not save what an agent changed there.")
def release(sandbox_id: str | None, config_file: str | None, yes: bool, force: bool, unsaved: bool) -> None:
    """Give a sandbox back, with all that is in it; without an ID this workspace's. It ends within moments.

    What an agent changed in this workspace's sandbox is saved before (`syncd saved`), but not with
    sandbox.agent_changes = "overwrite". If something there cannot be saved, that is named, and asked once more; with
    --yes the sandbox is not released then (75), with --force it is.

    Asks on a terminal; elsewhere --yes has to be given.
    """
    from syncd.cli.agent_side import save_before_release  # noqa: PLC0415
    from syncd.cli.sandbox.admin import sandbox_admin_of  # noqa: PLC0415

    with sandbox_admin_of(configured(config_file)) as admin:
        wanted = admin.resolve(sandbox_id)
        follows = admin.after_release(wanted)
        lost = ""
        if unsaved:
            lost = "--unsaved saves nothing"
        elif wanted != admin.ours:
            lost = "it is not this workspace's sandbox"
        elif admin.config.sandbox.agent_changes is AgentChanges.OVERWRITE:
            lost = 'with sandbox.agent_changes = "overwrite" nobody looks for it'
        asks = not (yes or force)
        if asks:
            if not sys.stdin.isatty():
                raise click.UsageError("There is no terminal to ask on; use --yes.")
            becomes = f"lost, as {lost}" if lost else "saved here before"
            click.echo(f"What an agent changed in {wanted} is {becomes}. {follows}".rstrip(), err=True)
            if not admin.confirmed("Release it?"):
                click.echo("nothing was released", err=True)
                return
        elif lost:
            click.echo(f"what an agent changed in {wanted} is not saved, as {lost}", err=True)
        left = "" if lost else save_before_release(admin.config)
        if left:
            if not asks and not force:
                raise TryLater(f"{wanted} is not released: {left}", "try again, or give that up with --force")
            click.echo(left, err=True)
            if asks and not admin.confirmed("Release it all the same?"):
                click.echo("nothing was released", err=True)
                return
        try:
            admin.request(lambda: admin.account.release(wanted))
            done = f"released {wanted}"
        except SandboxNotFound:
            if wanted != admin.ours:
                raise
            done = f"{wanted} had ended already"
        try:
            admin.forget(wanted)
        except (TryLater, TimeoutError):
            follows = "The daemon cannot be reached now: `syncd push --force` has it use the next one."
    click.echo(f"{done}. {follows}" if follows else done)
