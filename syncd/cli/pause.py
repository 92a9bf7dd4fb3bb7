"""`syncd pause`: hold syncing, now and over restarts, until `syncd resume`."""

from __future__ import annotations

import os

import click

from syncd.cli.options import config_option, configured


def set_paused(config_file: str | None, word: str) -> None:
    """Through the daemon, or by the mark that the next one reads."""
    from syncd.cli.daemon_client import ask_daemon  # noqa: PLC0415
    from syncd.daemon.build import folders_of  # noqa: PLC0415
    from syncd.daemon.pause_file import PauseFile  # noqa: PLC0415

    config = configured(config_file)
    if ask_daemon(config, {"do": word}, 30) is None:
        PauseFile(folders_of(config, os.environ).state).set(paused=word == "pause")
        click.echo(f"{word}d; no daemon is running")
    else:
        click.echo(f"{word}d")


@click.command("pause")
@config_option
def command(config_file: str | None) -> None:
    """Hold syncing until `syncd resume`. Changes are kept in mind."""
    set_paused(config_file, "pause")
