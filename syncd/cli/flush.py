"""`syncd flush`: waits until all that was on disk when it was called is in the sandbox."""

from __future__ import annotations

import json
import math
import sys

import click

from syncd.cli.daemon_client import sync_now
from syncd.cli.options import config_option, configured, json_option, of_sandbox, sandbox_option
from syncd.cli.output import verbosity_options
from syncd.cli.progress import ProgressDisplay
from syncd.cli.push import tell_agents_side

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
@json_option
@verbosity_options
def command(config_file: str | None, timeout_s: float | None, sandbox: str | None, as_json: bool) -> None:
    """Wait until all that is on disk now is in the sandbox, or in each of several: `syncd flush && start-the-agent`.

    Where nothing has to be sent, the sandbox is asked if it still has what was sent, and filled if it was emptied.

    After a second, stderr says what is waited for. Up to two more syncs follow while a file changes as it is read; if
    it still does, it is named, with exit code 75, and everything else is in the sandbox. Paths that are held, as both
    sides changed them, are named on stderr, and so are those whose version there was saved; they are no failure. While
    syncing is paused it sends nothing, and ends with 75.

    --json: what `push --json` prints, of the last sync that was waited for.
    """
    if timeout_s is not None and math.isnan(timeout_s):
        raise click.UsageError("--timeout needs a number of seconds.")
    config = of_sandbox(configured(config_file), sandbox)
    with ProgressDisplay(silent_s=_SILENT_S) as progress:
        result = sync_now(config, {"do": "flush", "sandbox": sandbox}, progress, timeout_s)
    if as_json:
        click.echo(json.dumps(result))
        sys.stdout.flush()
    tell_agents_side(result)
