"""`syncd reload`: the running daemon reads its configuration anew."""

from __future__ import annotations

import click

from syncd.cli.daemon_client import order_daemon
from syncd.cli.options import config_of_daemon, config_option, config_path, configured


@click.command("reload")
@config_option
def command(config_file: str | None) -> None:
    """Have the running daemon read its configuration anew, as a SIGHUP does.

    It is checked first: a bad one is refused with its reason, and the daemon goes on with the old one.
    """
    config = configured(config_file)
    path = config_path(config_file)
    # The daemon that has this file may have another workspace until it reads it.
    if order_daemon(config_of_daemon(path) or config, {"do": "reload"}):
        click.echo("the daemon reads its configuration anew")
    else:
        click.echo("no daemon is running; the next one reads it")
