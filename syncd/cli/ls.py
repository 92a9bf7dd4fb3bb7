"""`syncd ls`: the paths that a snapshot would hold, or the excluded ones, each with its rule."""

from __future__ import annotations

import json

import click

from syncd.cli.options import config_option, configured, json_option
from syncd.cli.output import print_path
from syncd.core.text import shown_path
from syncd.model.entry import Kind


@click.command("ls")
@config_option
@click.option(
    "--excluded", "--ignored", "excluded", is_flag=True, help="The excluded paths instead, each with its rule."
)
@json_option
def command(config_file: str | None, excluded: bool, as_json: bool) -> None:
    """List the paths that would be sent, one a line; folders end with a slash.

    \b
    syncd ls
    syncd ls --excluded              what is not sent, each with its rule
    """
    config = configured(config_file)
    from syncd.cli.local_scan import scan_workspace  # noqa: PLC0415 - `ls --help` needs none of it

    found = scan_workspace(config)
    scan = found.scan
    left_out = [(path, decision.rule) for path, decision in found.left_out]
    left_out += [(path, secret.rule) for path, secret in found.secrets.items()]
    if excluded and as_json:
        rows = [{"path": path, "rule": str(rule)} for path, rule in left_out]
        click.echo(json.dumps(rows + [{"path": path, "rule": "cannot be read"} for path in sorted(scan.unread)]))
    elif excluded:
        for path, rule in left_out:
            print_path(path, f"\t{shown_path(str(rule))}")
        for path in sorted(scan.unread):
            print_path(path, "\tcannot be read")
    elif as_json:
        click.echo(
            json.dumps(
                [{"path": p, "kind": e.kind.name.lower(), "bytes": e.size_bytes} for p, e in scan.manifest.items()]
            )
        )
    else:
        for path, entry in scan.manifest.items():
            print_path(f"{path}/" if entry.kind is Kind.DIRECTORY else path)
