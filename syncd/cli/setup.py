"""`syncd setup`: runs `sandbox.setup` in the sandbox now, and shows its output."""

from __future__ import annotations

import sys

import click

from syncd.cli.options import config_option, configured_for, hinted, sandbox_option
from syncd.cli.output import verbosity_options
from syncd.cli.progress import ProgressDisplay
from syncd.cli.sync_now import sync_now
from syncd.core.errors import ConfigError, ExitCode
from syncd.core.settings import table_of

_SILENT_S = 1.0


@click.command("setup")
@config_option
@sandbox_option
@verbosity_options
def command(config_file: str | None, sandbox: str | None) -> ExitCode:
    """Run `sandbox.setup` in the sandbox now, and show its output.

    \b
    syncd setup && start-the-agent
    syncd setup --sandbox review     that of one, where there are several

    It ends with 0 if the program there did, and with 1 if that failed, took too long, or was ended by the service. It
    is run by the daemon, or by this command where none runs; one that is running already is waited for first.
    """
    config = configured_for(config_file, sandbox)
    if not config.sandbox.setup:
        table = table_of(config.sandbox_name)
        raise ConfigError(
            "there is no set-up to run", f'set {table}.setup, such as ["npm", "ci"], with `syncd config edit`'
        )
    with ProgressDisplay(silent_s=_SILENT_S, output=sys.stdout) as progress:
        result = sync_now(config, {"do": "setup", "sandbox": config.sandbox_name}, progress)
    if result["why"]:
        click.echo(hinted(f"the set-up {result['why']}; `syncd status` names it until one succeeds"), err=True)
    return ExitCode.DIFFERENT if result["why"] else ExitCode.DONE
