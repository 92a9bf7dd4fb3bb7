"""`syncd pull`: the sandbox's workspace, into a folder of its own."""

from __future__ import annotations

import click

from syncd.base.text import shown_path
from syncd.commands.options import config_option, configured


@click.command("pull")
@click.argument("destination", metavar="DEST", type=click.Path())
@config_option
def command(config_file: str | None, destination: str) -> None:
    """Download the sandbox's workspace into DEST, a new or an empty folder. Nothing is overwritten."""
    config = configured(config_file)
    from syncd.commands.downloading import read_dump  # noqa: PLC0415
    from syncd.effects.extraction import extract, folder_mode  # noqa: PLC0415

    folder_mode(destination)  # before anything is asked for
    extracted = read_dump(config, lambda packed, check: extract(packed, destination, check))
    for line in extracted.left_out:
        click.echo(f"left out: {line}", err=True)
    click.echo(f"pulled {extracted.files} files, {extracted.content_bytes:,} bytes, into {shown_path(destination)}")
