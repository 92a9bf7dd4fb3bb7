"""A sync on request: by the daemon, or by this process where none runs."""

from __future__ import annotations

from typing import Any

from syncd.cli.daemon_client import RETRY_S, STARTS_S, ask_daemon
from syncd.cli.options import CLOCK
from syncd.cli.progress import ProgressDisplay
from syncd.core.errors import Locked, Stop, TryLater
from syncd.core.settings import Config
from syncd.daemon.control import Message

_SETTING_UP = "setting up"


def sync_now(
    config: Config, request: Message, display: ProgressDisplay, timeout_s: float | None = None
) -> dict[str, Any]:
    """The result of a request for a sync: by the daemon, or by this process where none runs; one may start meanwhile.

    Raises `SyncdError`; that of an interrupt says what state it leaves.
    """
    ends_s = CLOCK.monotonic_s() + STARTS_S
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
        CLOCK.sleep(RETRY_S)


def _stopped(doing: str) -> TryLater:
    """The error of an interrupt. An interrupted upload changes nothing: only initialize changes the sandbox."""
    if doing.startswith(_SETTING_UP):
        return TryLater(f"stopped while {doing}, which may go on there", "`syncd setup` runs it again")
    if doing.startswith("unpacking"):
        return TryLater(f"stopped while {doing}, which may be done all the same", "`syncd push` makes sure")
    return TryLater(f"stopped while {doing}; the sandbox is unchanged", "`syncd push` sends it")
