"""Sends requests to the running daemon, if there is one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from syncd.cli.options import CLOCK
from syncd.cli.progress import ProgressDisplay
from syncd.cli.status.reader import StatusReader
from syncd.core.directories import directories_for, holder
from syncd.core.errors import ExitCode, Locked, Stop, TryLater, failure_with
from syncd.core.settings import Config
from syncd.core.waiter import Interrupt, Waiter, interrupting
from syncd.daemon.control import Message, ask
from syncd.sync.status_document import State

# A daemon that starts or reloads holds the lock a moment before it listens; a process that holds it longer is none.
_STARTS_S = 5.0
_RETRY_S = 0.1
# What it does at once is done in this time.
_ORDER_S = 30.0
# A busy machine may keep it from answering for some seconds.
_MOST_SILENCES = 3

Answered = TypeVar("Answered")
Done = TypeVar("Done")


def ask_or_do(ask: Callable[[], Answered | None], alone: Callable[[], Done]) -> Answered | Done:
    """The daemon's answer; if none runs (None), the result of `alone`. A daemon that starts in between is asked, too.

    Raises what either raises.
    """
    ends_s = CLOCK.monotonic_s() + _STARTS_S
    while True:
        answer = ask()
        if answer is not None:
            return answer
        try:
            return alone()
        except Locked:
            if CLOCK.monotonic_s() >= ends_s:
                raise
        CLOCK.sleep(_RETRY_S)


def ask_daemon(
    config: Config,
    request: Message,
    timeout_s: float | None = None,
    display: ProgressDisplay | None = None,
) -> dict[str, Any] | None:
    """The daemon's result, or None if none runs. Raises the failure that it answered, `TimeoutError`, and
    `KeyboardInterrupt` if a signal ended the wait: the daemon goes on.
    """
    interrupt = Interrupt()
    try:
        with interrupting(interrupt):
            return _ask_daemon(config, request, Waiter(interrupt, CLOCK), timeout_s, display)
    except Stop:
        raise KeyboardInterrupt from None


def order_daemon(config: Config, request: Message) -> bool:
    """Have the daemon do what it does at once, whatever it waits for; false if none runs. Raises `SyncdError`."""
    try:
        return ask_daemon(config, request, _ORDER_S) is not None
    except TimeoutError:
        raise TryLater(f"the daemon has not answered within {_ORDER_S:.0f} s", "see `syncd status`") from None


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
                if message["event"] == "progress" and display is not None:
                    if "wait_s" in message:
                        display.stage(State.RETRYING)
                    show(message, display)
                elif message["event"] == "done":
                    return result_of(message)
        except ConnectionError:
            if holder(folder) is None:
                return None
        if was_answered:
            raise TryLater("the daemon ended or reloaded before it was done", "try again")
        if CLOCK.monotonic_s() >= ends_s:
            raise TryLater("another syncd has this workspace and cannot be asked", "try again when it has ended")
        waiter.sleep(_RETRY_S)


def show(message: Message, display: ProgressDisplay) -> None:
    if "wait_s" in message:
        display.retrying(message["failed"], message["attempt"], message["wait_s"], message.get("gives_up_in_s"))
    elif "failed" in message:  # of an older daemon
        display.note(message["failed"])
    elif "done_files" in message:
        figures = (message[name] for name in ("done_files", "total_files", "done_bytes", "total_bytes"))
        display.packed(*figures)
    elif "done_bytes" in message:
        display.sent(message["done_bytes"], message["total_bytes"])
    else:
        display.stage(State(message["state"]))


def result_of(message: Message) -> dict[str, Any]:
    """The result in the last answer. Raises the failure that it tells of."""
    if message["exit"] != ExitCode.DONE:
        raise failure_with(message["exit"], message["message"])
    result: dict[str, Any] = message.get("result") or {}
    return result
