"""`syncd flush`: waits until all that was on disk when it was called is in the sandbox."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from syncd.cli.daemon_client import ask_daemon, ask_or_do
from syncd.cli.options import CLOCK, config_option, configured, json_option, of_sandbox, sandbox_option
from syncd.cli.output import log_level, verbosity_options
from syncd.cli.progress import ProgressDisplay
from syncd.cli.push import tell_held, tell_paths
from syncd.core.errors import Stop, TryLater
from syncd.core.settings import Config
from syncd.report.logs import LogFormat, set_up_logs

# A flush that is over sooner shows nothing.
_SILENT_S = 1.0
_LONGEST_S = 1e8


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

    After a second, stderr says what is waited for. Up to two more syncs follow while a file changes as it is read; if
    it still does, it is named, with exit code 75, and everything else is in the sandbox. Paths that are held, as both
    sides changed them, are named on stderr, and are no failure. While syncing is paused it sends nothing, and ends with
    75.

    --json: what `push --json` prints, of the last sync that was waited for.
    """
    config = of_sandbox(configured(config_file), sandbox)
    result = ask_or_do(lambda: _by_daemon(config, timeout_s, sandbox), lambda: _standalone(config, timeout_s, sandbox))
    if as_json:
        click.echo(json.dumps(result))
        sys.stdout.flush()
    tell_held(result)
    tell_paths(config, result)


def _by_daemon(config: Config, timeout_s: float | None, sandbox: str | None) -> dict[str, Any] | None:
    """The daemon's answer once it is done; None if no daemon runs. Raises `SyncdError`."""
    with ProgressDisplay(silent_s=_SILENT_S) as progress:
        try:
            return ask_daemon(config, {"do": "flush", "sandbox": sandbox}, timeout_s, progress)
        except TimeoutError:
            more = "the daemon goes on; give it more time, or see `syncd status`"
            raise TryLater(f"not in the sandbox after {timeout_s:g} s ({progress.doing_now})", more) from None
        except KeyboardInterrupt:
            raise TryLater(
                f"stopped waiting ({progress.doing_now}); the daemon goes on", "see `syncd status`"
            ) from None


def _standalone(config: Config, timeout_s: float | None, sandbox: str | None) -> dict[str, Any]:
    from syncd.cli.own_loop import refuse_paused, sync_alone  # noqa: PLC0415 - where no daemon runs

    refuse_paused(config)
    set_up_logs(log_level("critical"), LogFormat.TEXT, {})  # the command tells what failed
    ends_s = float("inf") if timeout_s is None else CLOCK.monotonic_s() + timeout_s
    with ProgressDisplay(silent_s=_SILENT_S) as progress, _alarm(timeout_s):
        try:
            return sync_alone(config, progress, give_up_s=timeout_s, sandbox=sandbox)
        except (Stop, KeyboardInterrupt):
            if CLOCK.monotonic_s() < ends_s:
                raise
            what = f"not in the sandbox after {timeout_s:g} s ({progress.doing_now})"
            raise TryLater(what, "give it more time, or start the daemon, which goes on by itself") from None


@contextmanager
def _alarm(timeout_s: float | None) -> Iterator[None]:
    """Interrupt the block when the time is over: not by SIGINT, which shells let background jobs of scripts ignore."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, min(timeout_s or 0, _LONGEST_S))  # 0: never
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # the time may be over at this moment
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
