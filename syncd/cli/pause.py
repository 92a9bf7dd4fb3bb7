"""`syncd pause` and `syncd resume`: hold syncing, now and over restarts, and go on."""

from __future__ import annotations

import os

import click

from syncd.cli.daemon_client import order_daemon
from syncd.cli.options import config_option
from syncd.cli.status import reader_for
from syncd.core.durable_file import PauseMarker

_DONE = {"pause": "paused until `syncd resume`", "resume": "resumed"}


def _pause_or_resume(config_file: str | None, action: str) -> None:
    """Pause or resume through the daemon, or by the file that the next one reads."""
    from syncd.daemon.build import folders_of  # noqa: PLC0415 - `pause --help` needs none of it

    config = reader_for(config_file).config  # a file that is not valid by now keeps no daemon from pausing
    if order_daemon(config, {"do": action}):
        click.echo(_DONE[action])
        return
    marker = PauseMarker(folders_of(config, os.environ).state)
    if action == "pause":
        marker.create()
    else:
        marker.remove()
    click.echo(f"{_DONE[action]}; no daemon is running")


@click.command("pause")
@config_option
def command(config_file: str | None) -> None:
    """Hold syncing until `syncd resume`, which syncs the changes made meanwhile.

    \b
    syncd pause && git rebase main; syncd resume
    """
    _pause_or_resume(config_file, "pause")


@click.command("resume")
@config_option
def resume(config_file: str | None) -> None:
    """Go on syncing, and catch up with what changed meanwhile."""
    _pause_or_resume(config_file, "resume")
