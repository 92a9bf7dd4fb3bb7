"""Finds what the status document does not hold: if the daemon answers, how the last one ended, its unit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from syncd import __version__
from syncd.cli.options import option_for
from syncd.core.clock import Clock
from syncd.core.directories import default_config_path
from syncd.core.errors import ConfigError
from syncd.core.workspace_lock import holder
from syncd.report.status_store import read_last, read_status
from syncd.sync.status_document import State, Status

if TYPE_CHECKING:
    from syncd.cli.status.screen import StatusContext

# It answers at once, whatever it waits for.
_TIMEOUT_S = 1.0
# While held it also scans the workspace now and then, which is no state of its own.
_HELD_TIMEOUT_S = 5.0
_RESTING = frozenset({State.WATCHING, State.DEBOUNCING, State.RETRYING, State.PAUSED, State.HELD})
# In another state it may be kept from answering, as by a slow disk. It writes its progress more often than this (the
# longest wait is 3 minutes, for the API's answer to an initialize).
_SILENCE_S = 300.0
# Each request wakes the daemon.
_ASK_EVERY_S = 10.0


class Inquiry:
    """Reads the status of one workspace, any number of times. `nothing` is the document if there is none."""

    def __init__(self, folder: str, nothing: Status, config_file: str, clock: Clock) -> None:
        self._folder = folder
        self._nothing = nothing
        self._config_file = config_file
        self._clock = clock
        self._answer: bool | None = None
        self._unwritten: Status | None = None
        self._asked: tuple[int | None, float | None] | None = None
        self._ask_again_s = 0.0

    def status(self) -> Status:
        """The document, the daemon's own where it cannot write it, with `responding` set."""
        status = read_status(self._folder, self._nothing)
        if not status.running:
            self._asked = None
            return replace(status, responding=None)
        now_s = self._clock.monotonic_s()
        asked = (status.pid, None if self._is_current else self._written_at_s())  # a hung one that wrote is asked again
        if asked != self._asked or now_s >= self._ask_again_s:
            self._answer = self._responding(status)
            self._asked = (status.pid, None if self._is_current else self._written_at_s())
            self._ask_again_s = self._clock.monotonic_s() + _ASK_EVERY_S
        return replace(self._unwritten or status, responding=self._answer)

    @property
    def _is_current(self) -> bool:
        """True if the daemon answered, and could write the document."""
        return bool(self._answer) and self._unwritten is None

    def context(self, status: Status) -> StatusContext:
        """The facts that the screen needs beside this document."""
        from syncd.cli.status.screen import DaemonEnding, StatusContext  # noqa: PLC0415 - for people alone

        written_at_s = self._written_at_s()
        before = read_last(self._folder, self._nothing)
        if written_at_s is None:
            ending = DaemonEnding.NEVER_RAN
        else:
            ending = DaemonEnding.KILLED if before.running else DaemonEnding.CLEAN
        return StatusContext(
            version=__version__,
            ending=ending,
            written_at_s=written_at_s,
            busy_pid=None if status.running else holder(self._folder),
            unit=self.installed_unit() if _needs_start(status) else None,
            option=option_for(self._config_file),
        )

    def _responding(self, status: Status) -> bool | None:
        """True if it answers; None: it is busy and has not answered, or it is starting or ending."""
        timeout_s = _HELD_TIMEOUT_S if status.state is State.HELD else _TIMEOUT_S
        from syncd.daemon.control import ask  # noqa: PLC0415 - where nothing runs, sockets are not needed

        self._unwritten = None
        try:
            for answer in ask(self._folder, {"do": "hello"}, self._clock, timeout_s):
                self._unwritten = msgspec.convert(answer.get("result", {}).get("status"), Status | None)
        except TimeoutError:
            written_at_s = self._written_at_s()
            silent = written_at_s is not None and self._clock.wall_s() - written_at_s >= _SILENCE_S
            if status.state not in _RESTING and not silent:
                return None
            # It may have begun to work in this moment.
            now = read_status(self._folder, self._nothing)
            return (
                False
                if (now.pid, now.state, now.state_since) == (status.pid, status.state, status.state_since)
                else None
            )
        except (OSError, ValueError, msgspec.MsgspecError):
            return None
        return True

    def _written_at_s(self) -> float | None:
        """The time of its last write: each file in the state folder is renamed into place there."""
        try:
            return os.stat(self._folder).st_mtime
        except OSError:
            return None

    def installed_unit(self) -> str | None:
        """The name of the unit that `syncd service install` wrote for this configuration."""
        folder = os.path.dirname(default_config_path(os.environ))
        units = os.path.join(os.path.dirname(folder), "systemd", "user")
        if not os.path.isdir(units):
            return None
        from syncd.cli.service.unit import unit_of  # noqa: PLC0415 - where there are units

        try:
            unit = unit_of(self._config_file, folder)
        except ConfigError:
            return None
        # Instances share a file; an installed one has a link among the units started at login.
        place = "" if unit.file == unit.name else "default.target.wants"
        return unit.name.removesuffix(".service") if os.path.lexists(os.path.join(units, place, unit.name)) else None


def _needs_start(status: Status) -> bool:
    """True if the screen shows how to start the daemon, or to restart it."""
    return not status.running or status.responding is False or status.daemon_version not in (None, __version__)
