"""`syncd pull`: the sandbox's workspace, into a folder of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypeVar

import click

from syncd.archive.extraction import extract, folder_mode
from syncd.cli.options import (
    CLOCK,
    config_option,
    configured_for,
    json_option,
    named,
    refuse_workspace,
    sandbox_option,
    stoppable,
)
from syncd.cli.output import log_level, verbosity, verbosity_options
from syncd.cli.progress import ProgressDisplay
from syncd.core.choices import GitThere
from syncd.core.interrupt import Interrupt, interrupting
from syncd.core.settings import Config, table_of
from syncd.core.text import counted, shown_path
from syncd.core.waiter import Waiter
from syncd.report.logs import LogFormat, set_up_logs
from syncd.sync.status_document import Progress

Made = TypeVar("Made")


@click.command("pull")
@click.argument("destination", metavar="DEST", type=click.Path(), callback=named)
@config_option
@sandbox_option
@json_option
@verbosity_options
def command(config_file: str | None, destination: str, sandbox: str | None, as_json: bool) -> None:
    """Download the sandbox's workspace into DEST, a new or an empty folder. Nothing is overwritten.

    The git repository that syncd keeps there does not come; one that someone else made does.
    """
    config = configured_for(config_file, sandbox)
    folder_mode(destination)  # before any request
    refuse_workspace(config, destination)
    with stoppable("pulled"), ProgressDisplay() as progress:
        git = repository_there(config)
        extracted = read_dump(config, progress, lambda packed, check: extract(packed, destination, check, git))
    if as_json:
        counts = {"files": extracted.files, "bytes": extracted.content_bytes}
        click.echo(json.dumps({**counts, "left_out": extracted.left_out, "unnamed": extracted.unnamed}))
        return
    for line in extracted.left_out:
        click.echo(f"not pulled: {line}", err=True)
    if extracted.unnamed:
        click.echo(f"not pulled: {extracted.unnamed:,} more", err=True)
    amount = f"{counted(extracted.files, 'file')}, {extracted.content_bytes:,} bytes"
    if verbosity() >= 0:
        click.echo(f"pulled {amount}, into {shown_path(destination)}")


def repository_there(config: Config) -> str:
    """Return the path of the repository that syncd keeps in the sandbox, which is no part of the work; empty: none."""
    from syncd.daemon.build import places_of, target_of  # noqa: PLC0415 - `pull --help` needs none of these
    from syncd.sandbox.agent_repository import recorded_home  # noqa: PLC0415
    from syncd.selection.ignore_files import GIT  # noqa: PLC0415
    from syncd.store.state_db import StateDb  # noqa: PLC0415

    if config.workspace.git is not GitThere.BASELINE:
        return ""
    with closing(StateDb(places_of(config, os.environ).state)) as db:
        return GIT if recorded_home(db, target_of(config, os.environ)) else ""


def read_dump(
    config: Config, progress: ProgressDisplay, make: Callable[[Iterator[bytes], Callable[[], None]], Made]
) -> Made:
    """The result of `make` for the archive's bytes; it must call its second argument often, which ends it at a signal.

    Raises `SyncdError`, `StepFailed`, `Stop`.
    """
    from syncd.daemon.build import key_of, target_of  # noqa: PLC0415
    from syncd.remote.api import Api  # noqa: PLC0415
    from syncd.remote.bucket import Dump  # noqa: PLC0415
    from syncd.remote.http_client import HttpClient  # noqa: PLC0415
    from syncd.sync.sandbox import retry_settings_of  # noqa: PLC0415

    set_up_logs(log_level("warning"), LogFormat.TEXT, {})
    interrupt = Interrupt()
    waiter = Waiter(interrupt, CLOCK)
    client = HttpClient(waiter)
    api = Api(target_of(config, os.environ), key_of(config, os.environ), client, table_of(config.sandbox_name))
    dump = Dump(api, client, retry_settings_of(config), waiter)
    with interrupting(interrupt):

        def counted(packed: Iterator[bytes]) -> Iterator[bytes]:
            received = 0
            progress.doing("downloading")
            for block in packed:
                received += len(block)
                progress.show(Progress(received, 0))
                yield block

        progress.doing("asking the sandbox for its files")
        try:
            return dump.read(
                lambda packed: make(counted(packed), interrupt.check),
                lambda failure, wait_s: progress.note(f"{failure}; trying again in {wait_s:.1f} s"),
            )
        finally:
            client.drop()
