"""`syncd run`: the daemon, until a signal stops it. Writes nothing to stdout."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import closing
from math import inf

import click

from syncd.cli.options import CLOCK, config_option, config_path, load_for_command
from syncd.core.api_key import ApiKey, was_replaced
from syncd.core.clock import stamp
from syncd.core.config_file import load_config
from syncd.core.directories import Lock
from syncd.core.durable_file import file_stamp
from syncd.core.errors import ExitCode, KeyRefused, Locked, Stop, SyncdError, TryLater
from syncd.core.process import use_one_heap
from syncd.core.settings import MAIN, Config
from syncd.core.signals import Interrupt, Signals
from syncd.core.waiter import Waiter
from syncd.daemon.build import daemon_of, excludes_for, folders_of, keys_of, selection_of
from syncd.daemon.control import listens
from syncd.daemon.shared_sandbox import refuse_named, refuse_taken
from syncd.report.logs import LogFormat, set_up_logs
from syncd.report.status_publisher import RunFacts
from syncd.sync.synced_hook import SyncedHook

_log = logging.getLogger("syncd")
# A command that is syncing by itself, such as `flush` in a script that started both, ends in this time.
_LOCKED_S = 10.0
_RETRY_S = 0.1


@click.command("run")
@config_option
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least that is logged.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How log lines look on stderr.",
)
def command(config_file: str | None, log_level: str, log_format: str) -> int:
    """Watch the workspace and keep the sandbox in sync with it, in the foreground.

    \b
    syncd run                      until Ctrl-C
    syncd run --log-level debug    with a log that says more

    SIGTERM and SIGINT stop it, SIGHUP reads the configuration anew, SIGUSR1 syncs at once.
    """
    use_one_heap()
    set_up_logs(log_level, LogFormat(log_format), os.environ)
    interrupt = Interrupt()
    signals = Signals(interrupt)
    try:
        with signals.installed(), closing(SyncedHook(os.environ, CLOCK)) as synced_hook:
            path = config_path(config_file, lambda text: _log.warning("%s", text))
            _run(path, interrupt, signals, synced_hook)
    except Stop:  # before its loop
        return ExitCode.DONE
    except SyncdError as failure:
        _log.error("%s", failure)  # a log line, as the daemon's others
        return failure.exit_code
    return ExitCode.DONE


def _run(path: str, interrupt: Interrupt, signals: Signals, synced_hook: SyncedHook) -> None:
    is_checked, run = False, RunFacts(os.getpid(), started_at=stamp(CLOCK.wall_s()), config_stamp=file_stamp(path))
    config = load_for_command(path)
    run.key_stamps = _key_stamps(config)
    config, keys, excludes = _usable(config, interrupt)
    while True:
        interrupt.check()
        try:
            with daemon_of(
                config,
                run,
                keys=keys,
                environ=os.environ,
                waiter=Waiter(interrupt, CLOCK),
                signals=signals,
                synced_hook=synced_hook,
                excludes=excludes,  # kept: git might fail where the old configuration is to stay
            ) as daemon:
                if not is_checked:  # after its status is written: of two that start at once, one sees the other
                    refuse_taken(config, os.environ)
                    is_checked = True
                if file_stamp(path) != run.config_stamp:  # by a command that found no daemon to tell
                    signals.reload_now()
                is_reload = daemon.run()
                if not is_reload:
                    synced_hook.close()  # before the lock is released: the next process runs its own
        except Locked:  # a command took the lock since it was checked
            _wait_for_lock(folders_of(config, os.environ).state, interrupt, inf if is_checked else _LOCKED_S)
            continue
        if not is_reload:
            return
        signals.reload = False
        run.config_stamp, run.key_stamps = file_stamp(path), _key_stamps(config)
        try:
            found = load_config(path)
            if (found.workspace.path, found.sandboxes) != (config.workspace.path, config.sandboxes):
                refuse_named(found, os.environ)
            run.key_stamps = _key_stamps(found)
            # Of its own workspace it waits for a command to end: it is to go on there in any case.
            is_moved = found.workspace.path != config.workspace.path
            config, keys, excludes = _usable(found, interrupt, _LOCKED_S if is_moved else inf)
            run.refused = ""
            _log.info("configuration read anew")
        except SyncdError as failure:
            run.refused = str(failure)
            _log.error("the new configuration is refused, the old one stays: %s", failure)
        key = keys[MAIN]
        if isinstance(key, ApiKey) and was_replaced(key, os.environ, config.sandbox.api_key_file):
            raise TryLater(
                "the API key file changed since this service was handed the key",
                "ending, for the service manager to start it with the new one",
            )


def _key_stamps(config: Config) -> dict[str, tuple[int, ...] | None]:
    """The stamps of the key files, taken before these are read: one that comes meanwhile is another one."""
    return {each.api_key_file: file_stamp(each.api_key_file) for each in config.sandboxes.values()}


def _usable(
    config: Config, interrupt: Interrupt, within_s: float = _LOCKED_S
) -> tuple[Config, Mapping[str, ApiKey | KeyRefused], str]:
    """The configuration, its keys and the person's exclude file, checked for all that keeps a daemon from starting.

    Raises `SyncdError`. This process must not hold the lock: a workspace that another daemon holds is refused, too, and
    one that a command holds for longer than `within_s`.
    """
    selection_of(config, os.environ)
    try:
        excludes = excludes_for(config, os.environ)
    finally:
        interrupt.check()  # a signal that came while git did not answer counts for more than that
    keys = keys_of(config, os.environ)
    _wait_for_lock(folders_of(config, os.environ).state, interrupt, within_s)
    return config, keys, excludes


def _wait_for_lock(folder: str, interrupt: Interrupt, within_s: float) -> None:
    """Wait until the lock is free. Raises `Locked` if a daemon holds it, or a command for longer; `Stop`."""
    ends_s, is_told = CLOCK.monotonic_s() + within_s, False
    while True:
        try:
            with Lock(folder):
                return
        except Locked:
            if CLOCK.monotonic_s() >= ends_s or listens(folder):
                raise
            if not is_told:
                _log.info("a command syncs this workspace by itself: waiting for its end")
                is_told = True
            CLOCK.sleep(_RETRY_S)  # by no waiter: its loop is yet to see a SIGUSR1
            interrupt.check()
