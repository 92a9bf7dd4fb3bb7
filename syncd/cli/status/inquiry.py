"""What `syncd status` finds out beside the document: whether the daemon answers, how the last one ended, its unit."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from msgspec.structs import replace

from syncd import __version__
from syncd.core.clock import Clock
from syncd.core.directories import default_config_path
from syncd.core.errors import ConfigError
from syncd.core.lock import holder
from syncd.report.status_store import read_last, read_status
from syncd.sync.status_document import State, Status

if TYPE_CHECKING:
    from syncd.cli.status.screen import StatusContext

# It hears whoever asks, whatever it waits for.
_TIMEOUT_S = 1.0
# While held it also looks at the workspace now and then, and tells nobody.
_HELD_TIMEOUT_S = 5.0
_RESTING = frozenset({State.WATCHING, State.DEBOUNCING, State.RETRYING, State.PAUSED, State.HELD})
# In another state this machine may keep it from answering, a slow disk for one. It writes how far it is: nothing takes
# so long without a word (the API's answer to an initialize is waited for 3 minutes at most).
_SILENCE_S = 300.0
# Each question wakes the daemon.
_ASK_AGAIN_S = 10.0


class Inquiry:
    """Asks about one workspace as often as wanted. `nothing` is the document where none lies in the state folder."""

    def __init__(self, folder: str, nothing: Status, config_file: str, clock: Clock) -> None:
        self._folder = folder
        self._nothing = nothing
        self._config_file = config_file
        self._clock = clock
        self._answer: bool | None = None
        self._answered: tuple[int | None, float | None] | None = None
        self._ask_again_s = 0.0

    def status(self) -> Status:
        """The document, and whether its daemon answers."""
        status = read_status(self._folder, self._nothing)
        if not status.running:
            self._answered = None
            return replace(status, responding=None)
        now_s = self._clock.monotonic_s()
        about = (status.pid, None if self._answer else self._heard_at_s())  # a hung one that wrote is hung no more
        if about != self._answered or now_s >= self._ask_again_s:
            self._answer = self._responding(status)
            self._answered = (status.pid, None if self._answer else self._heard_at_s())
            self._ask_again_s = self._clock.monotonic_s() + _ASK_AGAIN_S
        return replace(status, responding=self._answer)

    def context(self, status: Status) -> StatusContext:
        """What the screen needs beside this document."""
        from syncd.cli.status.screen import DaemonEnding, StatusContext  # noqa: PLC0415 - for people alone

        heard_at_s = self._heard_at_s()
        before = read_last(self._folder, self._nothing)
        if heard_at_s is None:
            ending = DaemonEnding.NEVER_RAN
        else:
            ending = DaemonEnding.WITHOUT_A_WORD if before.running else DaemonEnding.IN_ORDER
        return StatusContext(
            version=__version__,
            ending=ending,
            heard_at_s=heard_at_s,
            busy_pid=None if status.running else holder(self._folder),
            unit=self._unit() if _to_be_started(status) else None,
            option=self._option(),
        )

    def _responding(self, status: Status) -> bool | None:
        """None: it is at work and has not answered, or ends or begins just now."""
        timeout_s = _HELD_TIMEOUT_S if status.state is State.HELD else _TIMEOUT_S
        from syncd.daemon.control import ask  # noqa: PLC0415 - where nothing runs, sockets are not needed

        try:
            for _ in ask(self._folder, {"do": "hello"}, self._clock, timeout_s):
                pass
        except TimeoutError:
            heard_at_s = self._heard_at_s()
            silent = heard_at_s is not None and self._clock.wall_s() - heard_at_s >= _SILENCE_S
            if status.state not in _RESTING and not silent:
                return None
            # It may have begun to work in the very instant.
            now = read_status(self._folder, self._nothing)
            return (
                False
                if (now.pid, now.state, now.state_since) == (status.pid, status.state, status.state_since)
                else None
            )
        except (OSError, ValueError):
            return None
        return True

    def _heard_at_s(self) -> float | None:
        """When it last wrote anything: whatever it writes to its state folder is renamed into place there."""
        try:
            return os.stat(self._folder).st_mtime
        except OSError:
            return None

    def _option(self) -> str:
        if self._config_file == os.path.abspath(default_config_path(os.environ)):
            return ""
        return f" --config {shlex.quote(self._config_file)}"

    def _unit(self) -> str | None:
        """The unit that `syncd service install` wrote for this configuration, as systemctl is told it."""
        folder = os.path.dirname(default_config_path(os.environ))
        units = os.path.join(os.path.dirname(folder), "systemd", "user")
        if not os.path.isdir(units):
            return None
        from syncd.cli.service.unit import unit_of  # noqa: PLC0415 - where there are units

        try:
            unit = unit_of(self._config_file, folder)
        except ConfigError:
            return None
        # The file of an instance serves others too; that this one was installed shows in what is started at login.
        place = "" if unit.file == unit.name else "default.target.wants"
        return unit.name.removesuffix(".service") if os.path.lexists(os.path.join(units, place, unit.name)) else None


def _to_be_started(status: Status) -> bool:
    """Whether the screen has to tell how a daemon is started, or started again."""
    return not status.running or status.responding is False or status.daemon_version not in (None, __version__)
