"""`syncd flush`: returns once all that was on disk when it was called is in the sandbox."""

from __future__ import annotations

import os

import click

from syncd.base.config import Config
from syncd.base.errors import TryLater
from syncd.base.folders import folders_for
from syncd.commands.options import config_option, configured


@click.command("flush")
@config_option
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Give up after this long.",
)
def command(config_file: str | None, timeout_s: float | None) -> None:
    """Wait until all that is on disk now is in the sandbox: `syncd flush && start-the-agent`."""
    config = configured(config_file)
    from syncd.commands.by_daemon import ask_or_do  # noqa: PLC0415 - after the configuration is known to be right

    try:
        ask_or_do(config, {"do": "flush"}, lambda: _flush_alone(config, timeout_s), timeout_s)
    except TimeoutError:
        raise TryLater(f"not in the sandbox after {timeout_s:g} s: {_why(config)}", "see `syncd status`") from None


def _flush_alone(config: Config, timeout_s: float | None) -> None:
    from syncd.commands.lone_sync import sync_alone  # noqa: PLC0415
    from syncd.commands.onlooker import Quiet  # noqa: PLC0415
    from syncd.effects.snapshot import Demand  # noqa: PLC0415
    from syncd.process.logs import LogFormat, set_up_logs  # noqa: PLC0415

    set_up_logs("error", LogFormat.TEXT, {})
    sync_alone(config, Demand.CHANGED, Quiet(), give_up_s=timeout_s)


def _why(config: Config) -> str:
    from syncd.commands.status import status_of  # noqa: PLC0415

    status = status_of(config, folders_for(config.workspace.path, os.environ).state)
    return status.last_error.message if status.last_error else f"the daemon is {status.state}"
