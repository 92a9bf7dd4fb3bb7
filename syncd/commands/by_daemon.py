"""Asking the running daemon, where there is one."""

from __future__ import annotations

import os
from typing import Any

from syncd.base.config import Config
from syncd.base.errors import NeedsPerson, SyncdError, TryLater
from syncd.base.folders import folders_for
from syncd.commands.onlooker import Onlooker
from syncd.commands.options import CLOCK
from syncd.effects.control import Message, ask
from syncd.effects.lock import holder
from syncd.policy.status import State


def ask_daemon(
    config: Config,
    request: Message,
    timeout_s: float | None = None,
    onlooker: Onlooker | None = None,
) -> dict[str, Any] | None:
    """The daemon's last word, or None where none runs. Raises what it ended with, and `TimeoutError`."""
    folder = folders_for(config.workspace.path, os.environ).state
    try:
        for message in ask(folder, request, CLOCK, timeout_s):
            if message["event"] == "progress" and onlooker is not None:
                _show(message, onlooker)
            elif message["event"] == "done":
                return _last_word(message)
    except ConnectionError:
        if holder(folder) is None:
            return None
    raise TryLater("the daemon ended or reloaded before it was done", "try again")


def _show(message: Message, onlooker: Onlooker) -> None:
    if "failed" in message:
        onlooker.retry(message["failed"])
    elif "done_files" in message:
        figures = (message[name] for name in ("done_files", "total_files", "done_bytes", "total_bytes"))
        onlooker.packed(*figures)
    elif "done_bytes" in message:
        onlooker.sent(message["done_bytes"], message["total_bytes"])
    else:
        onlooker.stage(State(message["state"]))


def _last_word(message: Message) -> dict[str, Any]:
    code = message["exit"]
    if code == 0:
        result: dict[str, Any] = message.get("result") or {}
        return result
    failure: type[SyncdError] = NeedsPerson if code == NeedsPerson.exit_code else TryLater
    raise failure(message["message"])
