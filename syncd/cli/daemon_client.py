"""Sends requests to the running daemon, if there is one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from msgspec import convert

from syncd.cli.options import CLOCK, hinted, interruptible
from syncd.cli.progress import ProgressDisplay
from syncd.cli.status import StatusReader
from syncd.core.config_file import load_config
from syncd.core.directories import holder
from syncd.core.errors import ExitCode, Locked, TryLater, failure_with
from syncd.core.settings import Config
from syncd.core.waiter import Waiter
from syncd.daemon.control import Message, ask
from syncd.sync.status_document import Progress, State

# A daemon that starts or reloads holds the lock a moment before it listens; a process that holds it longer is none.
STARTS_S = 5.0
RETRY_S = 0.1
# What it does at once is done in this time.
_ORDER_S = 30.0
# A busy machine may keep it from answering for some seconds.
_MOST_SILENCES = 6


def answers(
    config: Config,
    request: Message,
    waiter: Waiter,
    timeout_s: float | None = None,
    on_silence: Callable[[], None] = lambda: None,
) -> Generator[Message]:
    """Send the running daemon a request, and yield what it answers, to the end; nothing if none runs.

    One that starts, or reads its configuration anew, is waited for. `on_silence` is called while it says nothing.
    Raises `Locked`, `TryLater`, `TimeoutError`, and `Stop` if a signal ended the wait: the daemon goes on.
    """
    began_s = CLOCK.monotonic_s()
    # Until when one that holds the lock may begin to listen, and when one that does not may come back.
    ends_s, back_s = began_s + min(STARTS_S, timeout_s or STARTS_S), began_s
    silences = 0

    def note_silence() -> None:
        nonlocal silences
        status = reader.status()
        silences = silences + 1 if status.responding is False else 0
        if silences == _MOST_SILENCES:
            raise TryLater(f"the daemon (process {status.pid}) does not answer", "see `syncd status`")
        on_silence()

    reader = StatusReader(config.file, config, waiter)  # a state folder of another user is refused at once
    other = reader
    while True:
        now_s = CLOCK.monotonic_s()
        left_s = None if timeout_s is None else began_s + timeout_s - now_s
        was_answered = False
        try:
            for message in ask(reader.folder, request, waiter, left_s, note_silence):
                if message["event"] == "reloading":  # it needs the lock, which is free for a moment
                    ends_s = back_s = CLOCK.monotonic_s() + STARTS_S
                    if request["do"] == "reload":  # done, once the daemon is back, in the new workspace or the old
                        request, reader = {"do": "hello"}, StatusReader(config.file, load_config(config.file), waiter)
                    break
                was_answered = True
                yield message
                if message["event"] == "done":
                    return
        except ConnectionError:
            if was_answered and request["do"] != "write":  # which goes on without it
                raise TryLater("the daemon ended before it was done", "try again") from None
            if now_s >= back_s and holder(reader.folder) is None and holder(other.folder) is None:
                return
            reader, other = other, reader
        if now_s >= ends_s:
            raise Locked("another syncd has this workspace and cannot be asked", "try again when it has ended")
        waiter.sleep(RETRY_S)


def ask_daemon(
    config: Config, request: Message, timeout_s: float | None = None, display: ProgressDisplay | None = None
) -> dict[str, Any] | None:
    """The daemon's result, or None if none runs. Raises the failure that it answered, and as `answers` does."""
    with interruptible() as waiter:
        for message in answers(config, request, waiter, timeout_s):
            if message["event"] == "done":
                return result_of(message)
            if display is not None:
                show(message, display)
    return None


def order_daemon(config: Config, request: Message) -> bool:
    """Have the daemon do what it does at once, whatever it waits for; false if none runs. Raises `SyncdError`."""
    try:
        return ask_daemon(config, request, _ORDER_S) is not None
    except TimeoutError:
        raise TryLater(f"the daemon has not answered within {_ORDER_S:.0f} s", "see `syncd status`") from None


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
        raise failure_with(message["exit"], hinted(message["message"]))
    result: dict[str, Any] = message.get("result") or {}
    return result
