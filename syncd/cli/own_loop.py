"""Serves a command's request by the daemon's loop in this process, where no daemon runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from math import inf
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from syncd.cli.daemon_client import result_of, show
from syncd.cli.options import CLOCK, interruptible
from syncd.cli.output import log_level
from syncd.cli.progress import ProgressDisplay
from syncd.core.durable_file import PauseMarker
from syncd.core.errors import ExitCode, Stop
from syncd.core.settings import Config
from syncd.core.signals import Signals
from syncd.core.text import few, one_line
from syncd.daemon.build import daemon_of, keys_of, places_of
from syncd.daemon.control import Message
from syncd.daemon.shared_sandbox import refuse_taken
from syncd.daemon.sync_requests import PAUSED
from syncd.report.logs import LogFormat, set_up_logs
from syncd.report.status_publisher import RunFacts
from syncd.sync.synced_hook import SyncedHook

_LONGEST_S = 1e8  # that a timer takes


class _Asker(Struct):
    """The command itself, to which the loop sends what it would send to a client."""

    view: ProgressDisplay
    answer: Message | None = None

    @property
    def waits(self) -> bool:
        return self.answer is None

    def send(self, message: Message) -> None:
        show(message, self.view)

    def done(self, exit_code: ExitCode, message: str = "", **more: Any) -> None:
        self.answer = {"exit": exit_code, "message": message, **more}


def sync_alone(
    config: Config, view: ProgressDisplay, request: Message, timeout_s: float | None = None
) -> dict[str, Any]:
    """Sync once, as a daemon does for this `push` or `flush`, and again while files change as they are read; or set up.

    Return what a daemon would answer. Raises `Locked` where one runs, `SyncdError`, `Stop`, `TimeoutError`.
    """
    if request["do"] == "flush" and PauseMarker(places_of(config, os.environ).state).exists:
        raise PAUSED
    set_up_logs(log_level("critical"), LogFormat.TEXT, {})  # the command tells what failed
    if timeout_s is not None:
        give_up_s = min(timeout_s, config.retry.give_up_after_seconds)
        config = replace(config, retry=replace(config.retry, give_up_after_seconds=give_up_s))
    asker, synced_hook = _Asker(view), SyncedHook(os.environ, CLOCK)
    with (
        interruptible() as waiter,
        _alarm(timeout_s),
        daemon_of(
            config,
            RunFacts(),
            keys=keys_of(config, os.environ),
            environ=os.environ,
            waiter=waiter,
            signals=Signals(waiter.interrupt),
            synced_hook=synced_hook,
        ) as daemon,
        closing(synced_hook),
    ):
        refuse_taken(config, os.environ)
        warnings = daemon.serve(request, asker)
        if synced_hook.is_running:
            view.note("stopped before sync.on_synced was done")
    answer = asker.answer or {}
    named = ("torn:", "obstacle:", "setup") if answer["exit"] != ExitCode.DONE else ()  # the error names these paths
    told = [f"warning: {one_line(str(each), 600)}" for each in warnings if not each.key.startswith(named)]
    for text in few(told, len(told), " warnings: see `syncd status`"):
        view.note(text)
    return result_of(answer)


@contextmanager
def _alarm(timeout_s: float | None) -> Iterator[None]:
    """Interrupt when the time is over: not by SIGINT, which shells let background jobs of scripts ignore."""
    ends_s = inf if timeout_s is None else CLOCK.monotonic_s() + timeout_s
    signal.setitimer(signal.ITIMER_REAL, min(timeout_s or 0, _LONGEST_S))  # 0: never
    try:
        yield
    except Stop:
        if CLOCK.monotonic_s() < ends_s:
            raise
        raise TimeoutError from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
