"""`syncd status`: the status document, for people or for machines; works whether or not a daemon runs."""

from __future__ import annotations

import os
import sys

import click

from syncd.base.config import Config
from syncd.base.folders import folders_for
from syncd.base.text import shown_path
from syncd.commands.options import CLOCK, config_option, configured, json_option
from syncd.effects.status_file import encoded, read_status
from syncd.policy.status import SandboxName, State, Status

_COLOURS = {
    State.WATCHING: "green",
    State.HELD: "red",
    State.RETRYING: "yellow",
    State.STOPPED: "red",
    State.PAUSED: "yellow",
}
_SENTENCES = {
    State.STARTING: "starting",
    State.WATCHING: "watching for changes",
    State.DEBOUNCING: "waiting for changes to settle",
    State.SNAPSHOTTING: "packaging",
    State.UPLOADING: "uploading",
    State.INITIALIZING: "initializing the sandbox",
    State.RETRYING: "retrying after a failure",
    State.PAUSED: "paused (syncd resume goes on)",
    State.HELD: "held until a person acts",
    State.STOPPED: "stopped (not running)",
}
_REDRAW_S = 0.5


@click.command("status")
@config_option
@json_option
@click.option("--watch", is_flag=True, help="Stay, and show it as it changes.")
def command(config_file: str | None, as_json: bool, watch: bool) -> None:
    """Show what the daemon is doing and did last."""
    config = configured(config_file)
    folder = folders_for(config.workspace.path, os.environ).state
    shown = ""
    while True:
        status = status_of(config, folder)
        text = encoded(status).decode() if as_json else rendered(status)
        if text != shown:
            if watch and not as_json and sys.stdout.isatty():
                click.clear()
            click.echo(text)
            sys.stdout.flush()
            shown = text
        if not watch:
            return
        CLOCK.sleep(_REDRAW_S)


def status_of(config: Config, folder: str) -> Status:
    """The document of this configuration's workspace."""
    sandbox = SandboxName(config.sandbox.id or "", config.sandbox.base_url, config.sandbox.region)
    nothing = Status(
        running=False, pid=None, state=State.STOPPED, workspace=shown_path(config.workspace.path), sandbox=sandbox
    )
    return read_status(folder, nothing)


def rendered(status: Status) -> str:
    """The document for people: at most a screen."""
    state = click.style(_SENTENCES[status.state], fg=_COLOURS.get(status.state), bold=True)
    if status.progress is not None and status.progress.total_bytes:
        done = status.progress.done_bytes / status.progress.total_bytes
        state += f"  {done:.0%} of {_size(status.progress.total_bytes)}"
    if status.retry_at:
        state += f"  next try {status.retry_at}"
    rows = [
        ("state", state),
        ("workspace", status.workspace),
        ("sandbox", f"{status.sandbox.id}  {status.sandbox.base_url}, {status.sandbox.region}"),
    ]
    last = status.last_sync
    if last is not None:
        rows.append(
            ("last sync", f"{last.finished_at}  {last.files} files, {_size(last.archive_bytes)}, {last.seconds:.2f} s")
        )
    else:
        rows.append(("last sync", "none yet"))
    rows.append(("changes", "not all in the sandbox yet" if status.pending else "all in the sandbox"))
    rows.append(("this run", f"{status.syncs} syncs, {status.failures} failures"))
    if status.last_error is not None:
        rows.append(("last error", f"{status.last_error.at}  {status.last_error.step}: {status.last_error.message}"))
    rows += [("warning", warning) for warning in status.warnings]
    return "\n".join(f"{click.style(f'{name:10}', dim=True)}  {text}" for name, text in rows)


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
