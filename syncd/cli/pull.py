"""`syncd pull`: the sandbox's workspace, into a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import click

from syncd.archive.extraction import extract, require_new_or_empty
from syncd.cli.agent_side import OpenSandbox, open_sandbox
from syncd.cli.options import configured_for, named, refuse_workspace, sandbox_options, stoppable
from syncd.cli.output import tell_extracted, verbosity_options
from syncd.cli.progress import ProgressDisplay
from syncd.core.choices import GitThere
from syncd.remote.failure import StepFailed
from syncd.sandbox.agent_repository import recorded_home
from syncd.selection.ignore_files import GIT
from syncd.sync.status_document import Progress

Made = TypeVar("Made")


@click.command("pull")
@click.argument("destination", metavar="DEST", type=click.Path(), callback=named)
@sandbox_options
@verbosity_options
def command(config_file: str | None, destination: str, sandbox: str | None, as_json: bool) -> None:
    """Download the sandbox's workspace into DEST, a new or an empty folder. Nothing is overwritten.

    \b
    syncd pull ../from-sandbox

    The git repository that syncd keeps there does not come; one that someone else made does.
    """
    config = configured_for(config_file, sandbox)
    require_new_or_empty(destination)  # before any request
    refuse_workspace(config, destination)
    with stoppable("pulled"), ProgressDisplay() as progress, open_sandbox(config) as opened:
        git = repository_there(opened)
        extracted = read_dump(opened, progress, lambda packed, check: extract(packed, destination, check, git))
    tell_extracted("pulled", extracted, destination, as_json=as_json)


def repository_there(opened: OpenSandbox) -> str:
    """Return the path of the repository that syncd keeps in the sandbox, which is no part of the work; empty: none."""
    is_kept = opened.access.config.workspace.git is GitThere.BASELINE
    return GIT if is_kept and recorded_home(opened.sandbox.state.db, opened.sandbox.target) else ""


def read_dump(
    opened: OpenSandbox, progress: ProgressDisplay, make: Callable[[Iterator[bytes], Callable[[], None]], Made]
) -> Made:
    """The result of `make` for the archive's bytes; it must call its second argument often, which ends it at a signal.

    Raises `SyncdError`, `StepFailed`, `Stop`.
    """

    def counted(packed: Iterator[bytes]) -> Iterator[bytes]:
        received = 0
        progress.doing("downloading")
        for block in packed:
            received += len(block)
            progress.show(Progress(received, 0))
            yield block

    def wait_out(failure: StepFailed, wait_s: float) -> None:
        progress.note(f"{failure}; trying again in {wait_s:.1f} s")
        waiter.sleep(wait_s)

    waiter = opened.access.waiter
    progress.doing("asking the sandbox for its files")
    dump = opened.sandbox.looks.dump
    return dump.read(lambda packed: make(counted(packed), waiter.interrupt.check), wait_out)
