"""`syncd ls`: the paths that a snapshot would hold, or those that it leaves out, each with its rule."""

from __future__ import annotations

import json
import os

import click

from syncd.cli.options import CLOCK, config_option, configured, json_option
from syncd.cli.output import print_path
from syncd.core.text import shown_path


@click.command("ls")
@config_option
@click.option("--ignored", is_flag=True, help="The paths left out instead, each with the rule that left it out.")
@json_option
def command(config_file: str | None, ignored: bool, as_json: bool) -> None:
    """List the paths that a snapshot would hold, one a line; folders end with a slash."""
    config = configured(config_file)
    from syncd.archive.secret_files import exclude_secret_files  # noqa: PLC0415
    from syncd.daemon.build import excludes_for, reader_of, selection_of  # noqa: PLC0415
    from syncd.model.entry import Kind  # noqa: PLC0415
    from syncd.scan.scanner import Scanner  # noqa: PLC0415
    from syncd.selection.selection import Decision  # noqa: PLC0415
    from syncd.watch.scan_listener import NoScanListener  # noqa: PLC0415

    left_out: list[tuple[str, Decision]] = []

    def note(path: str, is_dir: bool, decision: Decision) -> None:
        left_out.append((f"{path}/" if is_dir else path, decision))

    scan = Scanner(
        config.workspace.path,
        selection_of(config, os.environ),
        NoScanListener(),
        note,
        personal_excludes=excludes_for(config, os.environ),
    ).scan()
    secrets = exclude_secret_files(scan, reader_of(config, CLOCK, os.environ))
    left_out += [(path, Decision(False, secret.rule)) for path, secret in secrets.items()]
    if ignored and as_json:
        rows = [{"path": path, "rule": str(decision.rule)} for path, decision in left_out]
        click.echo(json.dumps(rows + [{"path": path, "rule": "cannot be read"} for path in sorted(scan.unread)]))
    elif ignored:
        for path, decision in left_out:
            print_path(path, f"\t{shown_path(str(decision.rule))}")
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
