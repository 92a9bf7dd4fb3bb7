"""`syncd push`: one sync now, through the daemon if one runs, else by itself."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from syncd.base.config import Config
from syncd.commands.options import config_option, configured, json_option


@click.command("push")
@config_option
@click.option("--force", is_flag=True, help="Even if nothing changed, and even if the workspace is nearly empty.")
@json_option
def command(config_file: str | None, force: bool, as_json: bool) -> None:
    """Sync once, now, and wait until the sandbox has it."""
    config = configured(config_file)
    from syncd.commands.progress import Progress  # noqa: PLC0415

    with Progress() as progress:
        result = _push(config, force, progress)
    if as_json:
        click.echo(json.dumps(result))
    elif result["outcome"] == "unchanged":
        click.echo(f"nothing to do: the sandbox holds all {result['files']} files")
    else:
        sync = result["sync"]
        click.echo(f"synced {sync['files']} files, {sync['archive_bytes']:,} bytes, in {sync['seconds']:.2f} s")
    sys.stdout.flush()


def _push(config: Config, force: bool, progress: Any) -> dict[str, Any]:
    from syncd.commands.by_daemon import ask_daemon  # noqa: PLC0415 - after the configuration is known to be right

    result = ask_daemon(config, {"do": "push", "force": force}, onlooker=progress)
    if result is not None:
        return result
    from syncd.commands.lone_sync import sync_alone  # noqa: PLC0415
    from syncd.effects.snapshot import Demand  # noqa: PLC0415
    from syncd.process.logs import LogFormat, set_up_logs  # noqa: PLC0415
    from syncd.process.orders import described  # noqa: PLC0415

    set_up_logs("error", LogFormat.TEXT, {})
    outcome = sync_alone(config, Demand.FORCED if force else Demand.CHANGED, progress)
    return described(outcome)
