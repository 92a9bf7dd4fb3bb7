"""Reads the sandbox's archive for a command, with progress, and with waits that a signal ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from typing import TypeVar

from syncd.cli.options import CLOCK
from syncd.cli.output import log_level
from syncd.cli.progress import ProgressDisplay
from syncd.core.choices import GitThere
from syncd.core.interrupt import Interrupt, interrupting
from syncd.core.settings import Config
from syncd.core.waiter import Waiter
from syncd.daemon.build import key_of, places_of, target_of
from syncd.remote.api import Api
from syncd.remote.bucket import Dump
from syncd.remote.http_client import HttpClient
from syncd.report.logs import LogFormat, set_up_logs
from syncd.sandbox.repository.agent_repository import recorded_home
from syncd.sandbox.sandbox_state import recorded_leftovers
from syncd.selection.git_repository import GIT
from syncd.store.state_db import StateDb
from syncd.sync.sandbox_services import retry_settings_of

Made = TypeVar("Made")


def repository_there(config: Config) -> str:
    """Return the path of the repository that syncd keeps in the sandbox, which is no part of the work; empty: none."""
    if config.workspace.git is not GitThere.BASELINE:
        return ""
    with closing(StateDb(places_of(config, os.environ).state)) as db:
        return GIT if recorded_home(db, target_of(config, os.environ)) else ""


def leftovers_there(config: Config) -> Collection[str]:
    """Return the paths that were sent once and deleted here since, as far as known."""
    with closing(StateDb(places_of(config, os.environ).state)) as db:
        return recorded_leftovers(db, target_of(config, os.environ)).entries.keys()


def read_dump(
    config: Config, progress: ProgressDisplay, make: Callable[[Iterator[bytes], Callable[[], None]], Made]
) -> Made:
    """The result of `make` for the archive's bytes; it must call its second argument often, which ends it at a signal.

    Raises `SyncdError`, `StepFailed`, `Stop`.
    """
    set_up_logs(log_level("warning"), LogFormat.TEXT, {})
    interrupt = Interrupt()
    waiter = Waiter(interrupt, CLOCK)
    client = HttpClient(waiter)
    api = Api(target_of(config, os.environ), key_of(config, os.environ), client, CLOCK)
    dump = Dump(api, client, retry_settings_of(config), waiter)
    with interrupting(interrupt):

        def counted(packed: Iterator[bytes]) -> Iterator[bytes]:
            received = 0
            progress.doing("downloading")
            for block in packed:
                received += len(block)
                progress.received(received)
                yield block

        progress.doing("asking the sandbox for its files")
        try:
            return dump.read(
                lambda packed: make(counted(packed), interrupt.check),
                lambda failure, wait_s: progress.note(f"{failure}; trying again in {wait_s:.1f} s"),
            )
        finally:
            client.drop()
