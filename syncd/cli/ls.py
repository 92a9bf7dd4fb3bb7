"""`syncd ls` and `explain`: the paths that a snapshot would hold, or the excluded ones, each with its rule; one path.

The workspace is scanned as a sync would scan it.
"""

from __future__ import annotations

import json
import os
from contextlib import closing

import click

from syncd.cli.options import CLOCK, config_option, configured, json_option, named_paths
from syncd.cli.output import print_path
from syncd.core.settings import Config
from syncd.core.text import shown_path
from syncd.daemon.build import excludes_for, known_target, places_of, reader_of, selection_of
from syncd.merge.workspace_writer import WorkspaceWriter
from syncd.model.entry import ABSENT, ALL_BITS, Kind, same
from syncd.sandbox.sandbox_state import SandboxState
from syncd.scan import exclusions
from syncd.scan.scanner import Scan, Scanner
from syncd.selection.selection import Decision, Rule
from syncd.store.state_db import StateDb
from syncd.watch.changes import ScanListener

_UNSENT = "not sent yet"


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
    syncd ls --excluded    what is not sent, and by which rule
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
@click.argument("path", type=click.Path(readable=False))
@config_option
@json_option
def explain(path: str, config_file: str | None, as_json: bool) -> None:
    """Say if PATH is sent, by which rule, and where it stands in the sandbox.

    \b
    syncd explain dist/app.js

    There it is as sent, not yet sent, kept (only the agent changed it), held (it waits for you), or not there.
    """
    config = configured(config_file)
    (relative,) = named_paths(config, [path])
    selection, personal = selection_of(config, os.environ), excludes_for(config, os.environ)
    asked = f"{relative}/" if path.endswith("/") else relative
    answer = exclusions.explain(config.workspace.path, selection, asked, personal)
    if answer.included and relative:
        for at, secret in reader_of(config, CLOCK, os.environ).secrets([relative]).items():
            answer = exclusions.Explanation(included=False, at=at, rule=secret.rule)
    stands = {
        name: _standing(config.for_sandbox(name), relative) if answer.included else "excluded"
        for name in (config.sandboxes if relative else ())
    }
    if as_json:
        row = {"path": relative, "included": answer.included, "at": answer.at}
        why = {"rule": str(answer.rule or ""), "note": answer.note or ""}
        click.echo(json.dumps({**row, **why, "sandboxes": stands}))
        return
    name = shown_path(relative) or "the workspace itself"
    rule = shown_path(str(answer.rule))  # it has text of the ignore file, and the name of its folder
    if answer.included:
        reason = f"brought back by {rule}" if answer.rule else "no rule matches it"
        click.echo(f"included: {name} ({', but '.join(filter(None, (reason, answer.note)))})")
        for sandbox, standing in stands.items():
            # To one who skims, and to a script, "not sent" would read as excluded.
            shown = "not yet sent" if standing == _UNSENT else standing
            click.echo(f"in {sandbox if len(stands) > 1 else 'the sandbox'}: {shown}")
    else:
        above = "" if answer.at == relative else f" as its folder {shown_path(answer.at)}/ is,"
        click.echo(f"excluded: {name},{above} {f'by {rule}' if answer.rule else answer.note}")


def _standing(config: Config, path: str) -> str:
    """Return where an included path stands in this sandbox, by what is recorded. Raises `TryLater`, `OSError`."""
    with closing(StateDb(places_of(config, os.environ).state)) as db:
        db.require_readable()
        here = WorkspaceWriter(config.workspace.path, db, CLOCK).look([path])[path]
        if (target := known_target(config, os.environ)) is None:
            return "not there" if here.kind is Kind.ABSENT else _UNSENT
        state = SandboxState(db, target, name=config.sandbox_name)
    seen, sent = state.seen, state.content.base.get(path, ABSENT)
    is_as_sent = here.kind is sent.kind is Kind.ABSENT or (same(here, sent, ALL_BITS) and not state.content.uncertain)
    if path in seen.held:
        return "held"
    if path in seen.kept or (is_as_sent and path in seen.changed):
        return "kept"
    return ("not there" if sent.kind is Kind.ABSENT else "as sent") if is_as_sent else _UNSENT
