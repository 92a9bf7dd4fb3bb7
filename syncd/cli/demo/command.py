"""`syncd demo`: the whole job on this machine, with no account: a guided tour, or a directory of your own."""

from __future__ import annotations

import sys

import click

from syncd.core.errors import Stop

# So that a person can follow; a file needs no time to read.
_READING_S = 1.5


@click.command("demo")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(exists=True, file_okay=False))
def command(directory: str | None) -> None:
    """Show the whole job, with an emulator in the place of the sandbox.

    Without DIR: a tour of half a minute on a sample workspace. With DIR: what you do in that directory, until Ctrl-C.
    Nothing in DIR is changed, nothing leaves this machine, and nothing is left behind.
    """
    from syncd.cli.demo.screen import Screen  # noqa: PLC0415 - `demo --help` needs none of it
    from syncd.cli.demo.stage import staged  # noqa: PLC0415

    screen = Screen()
    try:
        with staged(directory) as stage:
            if directory is None:
                from syncd.cli.demo.tour import Tour  # noqa: PLC0415

                Tour(stage, screen, _READING_S if sys.stdout.isatty() else 0.0).go()
            else:
                from syncd.cli.demo.show import show  # noqa: PLC0415

                show(stage, screen)
    except Stop:
        screen.plain("\nstopped; nothing is left behind")
