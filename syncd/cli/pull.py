"""`syncd pull`: the sandbox's workspace, into a folder of its own."""

from __future__ import annotations

import click

from syncd.cli.options import config_option, configured, refuse_workspace
from syncd.core.errors import Stop, TryLater
from syncd.core.text import shown_path


@click.command("pull")
@click.argument("destination", metavar="DEST", type=click.Path())
@config_option
def command(config_file: str | None, destination: str) -> None:
    """Download the sandbox's workspace into DEST, a new or an empty folder. Nothing is overwritten.

    The git repository that syncd keeps there is left out; one that someone else made is not.
    """
    config = configured(config_file)
    from syncd.archive.extraction import extract, folder_mode  # noqa: PLC0415
    from syncd.cli.downloading import read_dump, repository_there  # noqa: PLC0415
    from syncd.cli.progress import ProgressDisplay  # noqa: PLC0415

    folder_mode(destination)  # before any request
    refuse_workspace(config, destination)
    try:
        with ProgressDisplay() as progress:
            git = repository_there(config)
            extracted = read_dump(config, progress, lambda packed, check: extract(packed, destination, check, git))
    except (Stop, KeyboardInterrupt):
        raise TryLater("stopped; nothing was pulled", "the same command begins anew") from None
    for line in extracted.left_out:
        click.echo(f"left out: {line}", err=True)
    if extracted.unnamed:
        click.echo(f"left out: {extracted.unnamed:,} more", err=True)
    files = "1 file" if extracted.files == 1 else f"{extracted.files:,} files"
    click.echo(f"pulled {files}, {extracted.content_bytes:,} bytes, into {shown_path(destination)}")
