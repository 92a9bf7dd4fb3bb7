"""Reads the status of one workspace or of all: the document, and what it does not hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from syncd import __version__
from syncd.cli.options import CLOCK, config_of_daemon, load_for_command, option_for
from syncd.core.config_file import config_files, config_folder, config_name
from syncd.core.directories import default_config_path, directories_for, holder, refuse_unreadable
from syncd.core.durable_file import PauseMarker
from syncd.core.errors import ConfigError
from syncd.core.interrupt import Interrupt
from syncd.core.settings import Config
from syncd.core.text import one_line, shown_path
from syncd.core.waiter import Waiter
from syncd.report.status_store import read_document, read_status
from syncd.sync.status_document import SandboxStatus, State, Status

# It answers at once, whatever it waits for.
_TIMEOUT_S = 1.0
_RESTING = frozenset({State.WATCHING, State.DEBOUNCING, State.RETRYING, State.PAUSED})
# In another state it may be kept from answering, as by a scan of a slow disk. It writes its progress more often than
# this (the longest wait is 3 minutes, for the API's answer to an initialize).
_SILENCE_S = 300.0


class StatusContext(Struct, frozen=True):
    """The facts that are not in the document.

    `written_at_s` is when it was last written, in seconds since 1970, None if never; `was_killed`: the process that
    wrote it did not write that it stopped; `busy_pid` a process that holds the workspace and is not the document's (0:
    in another PID namespace), `unit` the daemon's systemd user unit, if installed; `is_paused`: a person paused, which
    the next daemon keeps to. `option` is the option that commands need for this configuration (` --config FILE`, or
    nothing).
    """

    written_at_s: float | None
    was_killed: bool = False
    busy_pid: int | None = None
    unit: str | None = None
    option: str = ""
    is_paused: bool = False

    @property
    def start(self) -> str:
        """The command that starts the daemon."""
        return f"systemctl --user start {self.unit}" if self.unit else f"syncd run{self.option}"

    def restart(self, kill: str) -> str:
        """The way to restart the daemon; `kill` is the command that ends it where it has no unit."""
        if self.unit:
            return f"restart it: `systemctl --user restart {self.unit}`"
        return f"restart it: `{kill}`, then `{self.start}`"


class StatusReader:
    """Reads the status of a configuration's workspace. A `problem` with its file stops no daemon that runs.

    Raises `ConfigError` for a state folder that cannot be read.
    """

    def __init__(
        self, path: str, config: Config, waiter: Waiter | None = None, problem: ConfigError | None = None
    ) -> None:
        self._path, self.config, self.problem = path, config, problem
        self._waiter = waiter or Waiter(Interrupt(), CLOCK)
        self._folder = directories_for(config.workspace.path, os.environ).state
        refuse_unreadable(self._folder)
        self._nothing = _nothing(config)

    def status(self) -> Status:
        """The status, the daemon's own where it cannot write it, with `responding` set."""
        # The lock is perhaps held by a process that never wrote its status. What a silent one did is read afterwards.
        answers, unwritten = self._asked() if holder(self._folder) is not None else (None, None)
        status = unwritten or read_status(self._folder, self._nothing)
        if not status.running:
            return replace(status, responding=None)
        if answers is False and status.state not in _RESTING and not self._is_old():
            answers = None
        return replace(status, responding=answers)

    def busy_pid(self, status: Status) -> int | None:
        """The process that holds the workspace and is not the status', as a daemon that is ending."""
        return None if status.running else holder(self._folder)

    def context(self, status: Status, busy_pid: int | None) -> StatusContext:
        """The facts that the screen needs beside this document."""
        needs_start = (
            not status.running or status.responding is False or status.daemon_version not in (None, __version__)
        )
        return StatusContext(
            written_at_s=self._written_at_s(),
            was_killed=(read_document(self._folder) or self._nothing).running,
            busy_pid=busy_pid,
            unit=self._installed_unit() if needs_start else None,
            option=option_for(self._path),
            is_paused=PauseMarker(self._folder).exists,
        )

    def _installed_unit(self) -> str | None:
        """The name of the unit that `syncd service install` wrote for this configuration."""
        folder = os.path.dirname(default_config_path(os.environ))
        if not os.path.isdir(os.path.join(os.path.dirname(folder), "systemd", "user")):
            return None
        from syncd.cli.service import unit_of  # noqa: PLC0415 - where there are units

        with suppress(ConfigError):
            unit = unit_of(self._path, folder)
            return unit.stem if unit.is_installed else None
        return None

    def _asked(self) -> tuple[bool | None, Status | None]:
        """True if it answers, and a status that it could not write; false if it is silent; None: it starts or ends."""
        from syncd.daemon.control import ask  # noqa: PLC0415 - where nothing runs, sockets are not needed

        try:
            (answer,) = ask(self._folder, {"do": "hello"}, self._waiter, _TIMEOUT_S)
            return True, msgspec.convert(answer.get("result", {}).get("status"), Status | None)
        except TimeoutError:
            return False, None
        except (OSError, ValueError, msgspec.MsgspecError):
            return None, None

    def _is_old(self) -> bool:
        written_at_s = self._written_at_s()
        return written_at_s is not None and CLOCK.wall_s() - written_at_s >= _SILENCE_S

    def _written_at_s(self) -> float | None:
        """The time of its last write: each file in the state folder is renamed into place there."""
        try:
            return os.stat(self._folder).st_mtime
        except OSError:
            return None


def _nothing(config: Config) -> Status:
    """The status of a workspace that has none."""
    sandboxes = [
        SandboxStatus(name=name, id=each.id or "", base_url=each.base_url, region=each.region, state=State.STOPPED)
        for name, each in config.sandboxes.items()
    ]
    return Status(running=False, pid=None, workspace=shown_path(config.workspace.path), sandboxes=tuple(sandboxes))


def reader_for(path: str, load: Callable[[str], Config]) -> StatusReader:
    """The reader for this configuration; where it is not valid, for the daemon that runs with it.

    Raises `ConfigError` where none does.
    """
    try:
        return StatusReader(path, load(path))
    except ConfigError as failure:
        config = config_of_daemon(path)
        if config is None:
            raise
        return StatusReader(path, config, problem=failure)


# -- all workspaces


class WorkspaceRow(Struct, frozen=True):
    """One configuration: its status, and a `problem`: without a status, the error that makes it unusable."""

    config: str
    name: str
    status: Status | None
    problem: str = ""


def read_all() -> tuple[WorkspaceRow, ...]:
    """The rows of all configurations, `config.toml` first, then by name.

    Raises `ConfigError` for a folder of them that cannot be read: there would seem to be none.
    """
    folder = config_folder(os.environ)
    if os.path.lexists(folder) and not os.access(folder, os.R_OK | os.X_OK):
        raise ConfigError(f"the configuration folder {folder} cannot be read", "let your user read it")
    return tuple(map(_row, config_files(os.environ)))


def _row(file: str) -> WorkspaceRow:
    from syncd.daemon.shared_sandbox import conflict, others_naming  # noqa: PLC0415 - for many alone

    name = config_name(file)
    try:
        reader = reader_for(file, load_for_command)
    except ConfigError as failure:
        return WorkspaceRow(file, name, None, one_line(str(failure), 1000))
    others = others_naming(reader.config, os.environ)
    problem = reader.problem or (conflict(reader.config, others) if others else "")
    return WorkspaceRow(file, name, reader.status(), one_line(str(problem), 600))
