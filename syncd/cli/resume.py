"""`syncd resume`: go on syncing after `syncd pause`, and catch up."""

from __future__ import annotations

import click

from syncd.cli.options import config_option
from syncd.cli.pause import pause_or_resume


@click.command("resume")
@config_option
def command(config_file: str | None) -> None:
    """Go on syncing, and catch up with what changed meanwhile."""
    pause_or_resume(config_file, "resume")
