"""Asking the running daemon, where there is one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from syncd.cli.options import CLOCK
from syncd.cli.progress.display import ProgressDisplay
from syncd.core.directories import directories_for
from syncd.core.errors import Locked, NeedsPerson, Stop, SyncdError, TryLater
from syncd.core.interrupt import Interrupt, interrupting
from syncd.core.lock import holder
from syncd.core.settings import Config
from syncd.daemon.control import Message, ask
from syncd.sync.status_document import State

# A daemon that starts or reloads has the lock a moment before it can be asked; who has it longer is no daemon.
_STARTS_S = 1.5
_ASK_AGAIN_S = 0.1

Answered = TypeVar("Answered")
Done = TypeVar("Done")


def ask_or_do(ask: Callable[[], Answered | None], alone: Callable[[], Done]) -> Answered | Done:
    """What the daemon says; where none runs (None), what `alone` gives. One that starts in between is asked after all.

    Raises what either raises.
    """
    ends_s = CLOCK.monotonic_s() + _STARTS_S
    while True:
        said = ask()
        if said is not None:
            return said
        try:
            return alone()
        except Locked:
            if CLOCK.monotonic_s() >= ends_s:
                raise
        CLOCK.sleep(_ASK_AGAIN_S)


def ask_daemon(
    config: Config,
    request: Message,
    timeout_s: float | None = None,
    view: ProgressDisplay | None = None,
) -> dict[str, Any] | None:
    """The daemon's last word, or None where none runs. Raises what it ended with, `TimeoutError`, and
    `KeyboardInterrupt` where a signal ended the waiting: the daemon goes on.
    """
    interrupt = Interrupt()
    try:
        with interrupting(interrupt), interrupt.region():
            return _ask_daemon(config, request, timeout_s, view)
    except Stop:
        raise KeyboardInterrupt from None


def _ask_daemon(
    config: Config, request: Message, timeout_s: float | None, view: ProgressDisplay | None
) -> dict[str, Any] | None:
    folder = directories_for(config.workspace.path, os.environ).state
    ends_s = CLOCK.monotonic_s() + min(_STARTS_S, timeout_s or _STARTS_S)
    heard = False
    while True:
        try:
            for message in ask(folder, request, CLOCK, timeout_s):
                heard = True
                if message["event"] == "progress" and view is not None:
                    _show(message, view)
                elif message["event"] == "done":
                    return _last_word(message)
        except ConnectionError:
            if holder(folder) is None:
                return None
        if heard:
            raise TryLater("the daemon ended or reloaded before it was done", "try again")
        if CLOCK.monotonic_s() >= ends_s:
            raise TryLater("another syncd has this workspace and cannot be asked", "try again when it has ended")
        CLOCK.sleep(_ASK_AGAIN_S)


def _show(message: Message, view: ProgressDisplay) -> None:
    if "failed" in message:
        view.note(message["failed"])
    elif "done_files" in message:
        figures = (message[name] for name in ("done_files", "total_files", "done_bytes", "total_bytes"))
        view.packed(*figures)
    elif "done_bytes" in message:
        view.sent(message["done_bytes"], message["total_bytes"])
    else:
        view.stage(State(message["state"]))


def _last_word(message: Message) -> dict[str, Any]:
    code = message["exit"]
    if code == 0:
        result: dict[str, Any] = message.get("result") or {}
        return result
    failure: type[SyncdError] = NeedsPerson if code == NeedsPerson.exit_code else TryLater
    raise failure(message["message"])
