"""`syncd pull`: the sandbox's workspace, into a folder of its own."""

from __future__ import annotations

import json

import click

from syncd.archive.extraction import extract, folder_mode
from syncd.cli.options import config_option, configured_for, json_option, refuse_workspace, sandbox_option, stoppable
from syncd.cli.output import verbosity, verbosity_options
from syncd.cli.progress import ProgressDisplay
from syncd.core.text import counted, shown_path


@click.command("pull")
@click.argument("destination", metavar="DEST", type=click.Path())
@config_option
@sandbox_option
@json_option
@verbosity_options
def command(config_file: str | None, destination: str, sandbox: str | None, as_json: bool) -> None:
    """Download the sandbox's workspace into DEST, a new or an empty folder. Nothing is overwritten.

    The git repository that syncd keeps there does not come; one that someone else made does.

    --json: files, bytes, left_out (the paths that were not pulled, each with its reason) and unnamed (their number
    beyond these).
    """
    config = configured_for(config_file, sandbox)
    from syncd.cli.downloading import read_dump, repository_there  # noqa: PLC0415 - `pull --help` needs none of it

    folder_mode(destination)  # before any request
    refuse_workspace(config, destination)
    with stoppable("pulled"), ProgressDisplay() as progress:
        git = repository_there(config)
        extracted = read_dump(config, progress, lambda packed, check: extract(packed, destination, check, git))
    if as_json:
        counts = {"files": extracted.files, "bytes": extracted.content_bytes}
        click.echo(json.dumps({**counts, "left_out": extracted.left_out, "unnamed": extracted.unnamed}))
        return
    for line in extracted.left_out:
        click.echo(f"not pulled: {line}", err=True)
    if extracted.unnamed:
        click.echo(f"not pulled: {extracted.unnamed:,} more", err=True)
    amount = f"{counted(extracted.files, 'file')}, {extracted.content_bytes:,} bytes"
    if verbosity() >= 0:
        click.echo(f"pulled {amount}, into {shown_path(destination)}")
