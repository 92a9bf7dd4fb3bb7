"""`syncd explain`: tells if a path is in the snapshot, and the rule that decides."""

from __future__ import annotations

import json
import os

import click

from syncd.cli.options import CLOCK, config_option, configured, json_option, named_paths
from syncd.core.text import shown_path
from syncd.scan.path_rules import Explanation, explain


@click.command("explain")
@click.argument("path", type=click.Path())
@config_option
@json_option
def command(path: str, config_file: str | None, as_json: bool) -> None:
    """Say whether PATH is sent, and which rule decides, with its file and line."""
    config = configured(config_file)
    from syncd.daemon.build import excludes_for, reader_of, selection_of  # noqa: PLC0415 - `explain --help` needs none

    (relative,) = named_paths(config, [path])
    answer = explain(
        config.workspace.path, selection_of(config, os.environ), relative, excludes_for(config, os.environ)
    )
    if answer.included:
        secrets = reader_of(config, CLOCK, os.environ).secrets([relative] if relative else [])
        answer = next(
            (Explanation(included=False, at=path, rule=secret.rule) for path, secret in secrets.items()), answer
        )
    if as_json:
        row = {"path": relative, "included": answer.included, "at": answer.at}
        click.echo(json.dumps({**row, "rule": str(answer.rule or ""), "note": answer.note or ""}))
        return
    name = shown_path(relative) or "the workspace itself"
    rule = shown_path(str(answer.rule))  # it has text of the ignore file, and the name of its folder
    if answer.included:
        why = f"brought back by {rule}" if answer.rule else "no rule matches it"
        click.echo(f"included: {name} ({', but '.join(filter(None, (why, answer.note)))})")
    elif answer.at != relative:
        click.echo(f"excluded: {name}, as its folder {shown_path(answer.at)}/ is, by {rule}")
    else:
        click.echo(f"excluded: {name}, by {rule}" if answer.rule else f"excluded: {name}, {answer.note}")
