"""`syncd ls` and `explain`: the paths that a snapshot would hold, or the excluded ones, each with its rule; one path.

The workspace is scanned as a sync would scan it.
"""

from __future__ import annotations

import json
import os

import click

from syncd.cli.options import CLOCK, config_option, configured, json_option, named_paths
from syncd.cli.output import print_path
from syncd.core.settings import Config
from syncd.core.text import shown_path
from syncd.daemon.build import excludes_for, reader_of, selection_of
from syncd.model.entry import Kind
from syncd.scan import path_rules
from syncd.scan.scanner import Scan, Scanner
from syncd.selection.selection import Decision, Rule
from syncd.watch.changes import ScanListener


def scan_workspace(config: Config, listener: ScanListener | None = None) -> tuple[Scan, list[tuple[str, Rule | None]]]:
    """Scan the workspace and search it for secrets. Raises `SyncdError`.

    Return the scan without the files that hold a secret, and each excluded path with its rule, a folder with a slash.
    """
    excluded: list[tuple[str, Rule | None]] = []

    def note(path: str, is_dir: bool, decision: Decision) -> None:
        excluded.append((f"{path}/" if is_dir else path, decision.rule))

    selection, personal = selection_of(config, os.environ), excludes_for(config, os.environ)
    scanner = Scanner(config.workspace.path, selection, listener or ScanListener(), note, personal_excludes=personal)
    scan = scanner.scan()
    most_bytes = config.sync.max_snapshot_mib << 20  # a larger file is never sent, and would take minutes to read
    files = [path for path, it in scan.manifest.items() if it.kind is Kind.FILE and it.size_bytes <= most_bytes]
    # Every file is read, since the daemon's findings are not on disk.
    for path, secret in reader_of(config, CLOCK, os.environ).secrets(files).items():
        del scan.manifest[path]
        excluded.append((path, secret.rule))
    return scan, excluded


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
    scan, found = scan_workspace(config)
    rules = [(path, str(rule)) for path, rule in found]
    rules += [(path, "cannot be read") for path in sorted(scan.unread)]
    entries = scan.manifest.items()
    if excluded and as_json:
        click.echo(json.dumps([{"path": path, "rule": rule} for path, rule in rules]))
    elif excluded:
        for path, rule in rules:
            print_path(path, f"\t{shown_path(rule)}")
    elif as_json:
        click.echo(json.dumps([{"path": p, "kind": e.kind.name.lower(), "bytes": e.size_bytes} for p, e in entries]))
    else:
        for path, entry in entries:
            print_path(f"{path}/" if entry.kind is Kind.DIRECTORY else path)


@click.command("explain")
@click.argument("path", type=click.Path())
@config_option
@json_option
def explain(path: str, config_file: str | None, as_json: bool) -> None:
    """Say whether PATH is sent, and which rule decides, with its file and line."""
    config = configured(config_file)
    (relative,) = named_paths(config, [path])
    selection, personal = selection_of(config, os.environ), excludes_for(config, os.environ)
    answer = path_rules.explain(config.workspace.path, selection, relative, personal)
    if answer.included and relative:
        for at, secret in reader_of(config, CLOCK, os.environ).secrets([relative]).items():
            answer = path_rules.Explanation(included=False, at=at, rule=secret.rule)
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
