"""`syncd flush`: waits until all that was on disk when it was called is in the sandbox."""

from __future__ import annotations

import json
import math
import sys

import click

from syncd.cli.options import config_option, configured, json_option, no_setup_option, of_sandbox, sandbox_option
from syncd.cli.output import verbosity_options
from syncd.cli.progress import ProgressDisplay
from syncd.cli.push import tell_agents_side
from syncd.cli.sync_now import sync_now

# A flush that is over sooner shows nothing.
_SILENT_S = 1.0


@click.command("flush")
@config_option
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Give up after this long.",
)
@sandbox_option
@no_setup_option
@json_option
@verbosity_options
def command(
    config_file: str | None, timeout_s: float | None, sandbox: str | None, no_setup: bool, as_json: bool
) -> None:
    """Wait until all that is on disk now is in the sandbox.

    \b
    syncd flush && start-the-agent
    syncd flush --timeout 60         75 if that takes longer

    After a second it says on stderr what it waits for. Ends with 75 as well where a file changes each time that it is
    read, which is named, while syncing is paused, and where `sandbox.setup` failed, whose last lines are on stderr.
    Held paths are named on stderr, and so are saved ones: they are no failure.
    """
    if timeout_s is not None and math.isnan(timeout_s):
        raise click.UsageError("--timeout needs a number of seconds.")
    config = of_sandbox(configured(config_file), sandbox)
    with ProgressDisplay(silent_s=_SILENT_S) as progress:
        result = sync_now(config, {"do": "flush", "sandbox": sandbox, "no_setup": no_setup}, progress, timeout_s)
    if as_json:
        click.echo(json.dumps(result))
        sys.stdout.flush()
    tell_agents_side(result)
