"""Sends requests to the running daemon, if there is one; without it a sync is this process' own."""

from __future__ import annotations

import os
from typing import Any

from msgspec import convert

from syncd.cli.options import CLOCK, asking
from syncd.cli.progress import ProgressDisplay
from syncd.cli.status import StatusReader
from syncd.core.directories import directories_for, holder
from syncd.core.errors import ExitCode, Locked, Stop, TryLater, failure_with
from syncd.core.settings import Config
from syncd.core.waiter import Waiter
from syncd.daemon.control import Message, ask
from syncd.sync.status_document import Progress, State

# A daemon that starts or reloads holds the lock a moment before it listens; a process that holds it longer is none.
_STARTS_S = 5.0
_RETRY_S = 0.1
# What it does at once is done in this time.
_ORDER_S = 30.0
# A busy machine may keep it from answering for some seconds.
_MOST_SILENCES = 3
_SETTING_UP = "setting up"


def ask_daemon(
    config: Config,
    request: Message,
    timeout_s: float | None = None,
    display: ProgressDisplay | None = None,
) -> dict[str, Any] | None:
    """The daemon's result, or None if none runs. Raises the failure that it answered, `TimeoutError`, and
    `KeyboardInterrupt` if a signal ended the wait: the daemon goes on.
    """
    try:
        with asking() as waiter:
            return _ask_daemon(config, request, waiter, timeout_s, display)
    except Stop:
        raise KeyboardInterrupt from None


def order_daemon(config: Config, request: Message) -> bool:
    """Have the daemon do what it does at once, whatever it waits for; false if none runs. Raises `SyncdError`."""
    try:
        return ask_daemon(config, request, _ORDER_S) is not None
    except TimeoutError:
        raise TryLater(f"the daemon has not answered within {_ORDER_S:.0f} s", "see `syncd status`") from None


def sync_now(
    config: Config, request: Message, display: ProgressDisplay, timeout_s: float | None = None
) -> dict[str, Any]:
    """The result of a request for a sync: by the daemon, or by this process where none runs; one may start meanwhile.

    Raises `SyncdError`; that of an interrupt says what state it leaves.
    """
    ends_s = CLOCK.monotonic_s() + _STARTS_S
    while True:
        try:
            if (answer := ask_daemon(config, request, timeout_s, display)) is not None:
                return answer
            from syncd.cli.own_loop import sync_alone  # noqa: PLC0415 - where no daemon runs

            return sync_alone(config, display, request, timeout_s)
        except Locked:
            if CLOCK.monotonic_s() >= ends_s:
                raise
        except TimeoutError:
            what = f"not in the sandbox after {timeout_s:g} s ({display.doing_now})"
            raise TryLater(what, "give it more time; a daemon goes on by itself") from None
        except KeyboardInterrupt:
            what = f"stopped waiting ({display.doing_now}); the daemon goes on"
            raise TryLater(what, "see `syncd status`") from None
        except Stop:
            raise _stopped(display.doing_now) from None
        CLOCK.sleep(_RETRY_S)


def _stopped(doing: str) -> TryLater:
    """The error of an interrupt. An interrupted upload changes nothing: only initialize changes the sandbox."""
    if doing.startswith(_SETTING_UP):
        return TryLater(f"stopped while {doing}, which may go on there", "`syncd setup` runs it again")
    if doing.startswith("unpacking"):
        return TryLater(f"stopped while {doing}, which may be done all the same", "`syncd push` makes sure")
    return TryLater(f"stopped while {doing}; the sandbox is unchanged", "`syncd push` sends it")


def _ask_daemon(
    config: Config, request: Message, waiter: Waiter, timeout_s: float | None, display: ProgressDisplay | None
) -> dict[str, Any] | None:
    folder = directories_for(config.workspace.path, os.environ).state
    ends_s = CLOCK.monotonic_s() + min(_STARTS_S, timeout_s or _STARTS_S)
    was_answered = False
    reader, silences = StatusReader(config.file, config, waiter), 0

    def on_silence() -> None:
        nonlocal silences
        status = reader.status()
        silences = silences + 1 if status.responding is False else 0
        if silences == _MOST_SILENCES:
            raise TryLater(f"the daemon (process {status.pid}) does not answer", "see `syncd status`")

    while True:
        try:
            for message in ask(folder, request, waiter, timeout_s, on_silence):
                was_answered = True
                if message["event"] == "done":
                    return result_of(message)
                if display is not None:
                    if "wait_s" in message:
                        display.stage(State.RETRYING)
                    show(message, display)
        except ConnectionError:
            if holder(folder) is None:
                return None
        if was_answered:
            raise TryLater("the daemon ended or reloaded before it was done", "try again")
        if CLOCK.monotonic_s() >= ends_s:
            raise TryLater("another syncd has this workspace and cannot be asked", "try again when it has ended")
        waiter.sleep(_RETRY_S)


def show(message: Message, display: ProgressDisplay) -> None:
    """Show an event before the last one."""
    if message["event"] == "output":
        display.output(message["text"])
    elif "wait_s" in message:
        display.retrying(message["failed"], message["attempt"], message["wait_s"], message.get("gives_up_in_s"))
    elif "doing" in message:
        display.doing(message["doing"])
    elif "done_bytes" in message:
        display.show(convert(message, Progress))
    else:
        display.stage(State(message["state"]))


def result_of(message: Message) -> dict[str, Any]:
    """The result in the last answer. Raises the failure that it tells of."""
    if message["exit"] != ExitCode.DONE:
        raise failure_with(message["exit"], message["message"])
    result: dict[str, Any] = message.get("result") or {}
    return result
