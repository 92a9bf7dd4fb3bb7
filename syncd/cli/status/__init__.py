"""`syncd status`: the status document, for people or for programs, with or without a running daemon."""

from __future__ import annotations

import json
import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, TypeVar

import click
import msgspec
from msgspec.structs import replace

from syncd import __version__
from syncd.cli import discard_stdout
from syncd.cli.options import (
    CLOCK,
    config_of_daemon,
    config_option,
    config_path,
    configured,
    json_option,
    option_for,
)
from syncd.cli.output import home_relative, is_screen, stdout_failure, terminal_size, text_width, written
from syncd.cli.status.screen import StatusContext, WorkspaceRow, screen, table
from syncd.core.config_file import config_files, config_folder, config_name
from syncd.core.directories import default_config_path, directories_for, holder, refuse_unreadable
from syncd.core.durable_file import PauseMarker
from syncd.core.errors import ConfigError, ExitCode
from syncd.core.settings import Config
from syncd.core.signals import Interrupt
from syncd.core.text import counted, one_line, shown_path
from syncd.core.waiter import Waiter
from syncd.report.status_store import read_document, read_status
from syncd.sync.status_document import SandboxStatus, State, Status

Shown = TypeVar("Shown")

_WIDTH = 79  # some terminals begin a new line after a full one of 80
_WIDEST = 10_000
_OVERVIEW_VERSION = 1
_REDRAW_S = 0.5
_json = partial(json.dumps, separators=(",", ":"))  # some scripts search it for `"running":true`
# It answers at once, whatever it waits for.
_TIMEOUT_S = 1.0
_RESTING = frozenset({State.WATCHING, State.DEBOUNCING, State.RETRYING, State.PAUSED})
# In another state it may be kept from answering, as by a scan of a slow disk. It writes its progress more often than
# this (the longest wait is 3 minutes, for the API's answer to an initialize).
_SILENCE_S = 300.0


class StatusReader:
    """Reads the status of a configuration's workspace. A `problem` with its file stops no daemon that runs.

    Raises `ConfigError` for a state folder that cannot be read.
    """

    def __init__(
        self, path: str, config: Config, waiter: Waiter | None = None, problem: ConfigError | None = None
    ) -> None:
        self._path, self.config, self.problem = path, config, problem
        self._waiter = waiter or Waiter(Interrupt(), CLOCK)
        self.folder = directories_for(config.workspace.path, os.environ).state
        refuse_unreadable(self.folder)
        sandboxes = [
            SandboxStatus(
                name=name,
                id=each.id or "",
                base_url=each.base_url,
                region=each.region,
                state=State.STOPPED,
                pending=True,
            )
            for name, each in config.sandboxes.items()
        ]
        self._nothing = Status(
            running=False,
            pid=None,
            workspace=shown_path(config.workspace.path),
            sandboxes=tuple(sandboxes),
            workspace_link=shown_path(config.workspace_link),
            config=shown_path(config.file),
        )

    def status(self) -> Status:
        """The status, the daemon's own where it cannot write it, with `responding` set."""
        # The lock is perhaps held by a process that never wrote its status. What a silent one did is read afterwards.
        answers, unwritten = self._asked() if holder(self.folder) is not None else (None, None)
        status = unwritten or read_status(self.folder, self._nothing)
        if not status.running:
            return replace(status, responding=None)
        if answers is False and status.state not in _RESTING:
            now_s = CLOCK.wall_s()
            answers = False if now_s - (self._written_at_s() or now_s) >= _SILENCE_S else None
        return replace(status, responding=answers)

    def context(self, status: Status, other_pid: int | None) -> StatusContext:
        """The facts that the screen needs beside this document."""
        is_other = status.daemon_version not in (None, __version__)
        return StatusContext(
            written_at_s=self._written_at_s(),
            was_killed=(read_document(self.folder) or self._nothing).running,
            other_pid=other_pid,
            unit=self._installed_unit() if is_other or not status.running or status.responding is False else None,
            option=option_for(self._path),
            is_paused=PauseMarker(self.folder).exists,
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
            (answer,) = ask(self.folder, {"do": "hello"}, self._waiter, _TIMEOUT_S)
            return True, msgspec.convert(answer.get("result", {}).get("status"), Status | None)
        except TimeoutError:
            return False, None
        except (OSError, ValueError, msgspec.MsgspecError):
            return None, None

    def _written_at_s(self) -> float | None:
        """The time of its last write: each file in the state folder is renamed into place there."""
        try:
            return os.stat(self.folder).st_mtime
        except OSError:
            return None


def reader_for(config_file: str | None) -> StatusReader:
    """The reader for this configuration; where it is not valid, for the daemon that runs with it.

    Raises `ConfigError` where none does.
    """
    path = config_path(config_file)
    try:
        return StatusReader(path, configured(config_file))
    except ConfigError as failure:
        config = config_of_daemon(path)
        if config is None:
            raise
        return StatusReader(path, config, problem=failure)


# -- all workspaces


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
        reader = reader_for(file)
    except ConfigError as failure:
        return WorkspaceRow(file, name, None, one_line(str(failure), 1000))
    others = others_naming(reader.config, os.environ)
    problem = reader.problem or (conflict(reader.config, others) if others else "")
    return WorkspaceRow(file, name, reader.status(), one_line(str(problem), 600))


# -- the command


@click.command("status")
@config_option
@json_option
@click.option("--watch", is_flag=True, help="Keep running, and show it as it changes, until q or Ctrl-C.")
@click.option("--all", "all_", is_flag=True, help="A line for each configuration in ~/.config/syncd.")
@click.option("--check", "checks", is_flag=True, help="For scripts: exit with 1 unless all is in sync.")
def command(config_file: str | None, as_json: bool, *, watch: bool, all_: bool, checks: bool) -> int:
    """Show what the daemon is doing and did last.

    \b
    syncd status
    syncd status --watch    as it changes
    syncd status --all      every workspace, a line each
    """
    if checks and watch:
        raise click.UsageError("--check goes without --watch.")
    if all_ and config_file:
        raise click.UsageError("--all goes without --config.")
    is_drawn = not as_json and is_screen(sys.stdout)  # with `--json` a terminal is a pipe
    if all_:
        all_text = _all_json if as_json else _all_text
        if watch:
            return _watch(read_all, all_text, is_drawn=is_drawn)
        print(all_text(rows := read_all()))
        return _code(checks, [row.status for row in rows])
    reader = reader_for(config_file)

    def read() -> tuple[Status, int | None]:
        nonlocal reader
        if watch:
            reader = reader_for(config_file)
        status = reader.status()
        # A daemon that is ending still holds the workspace when its last document is read.
        return status, None if as_json or status.running else holder(reader.folder)

    def text(shown: tuple[Status, int | None]) -> str:
        if as_json:
            return _json(shown[0].document())
        width = text_width(sys.stdout, _WIDTH)
        return _written(screen(shown[0], reader.context(*shown), CLOCK.wall_s(), width))

    if watch:
        return _watch(read, text, is_drawn=is_drawn)
    print(text(shown := read()))
    return _code(checks, [shown[0]], reader.problem)


def _code(checks: bool, statuses: Sequence[Status | None], problem: ConfigError | None = None) -> ExitCode:
    """The exit code after the output. Raises the problem, if there is one."""
    if problem is not None:
        raise problem
    is_good = bool(statuses) and all(status is not None and status.in_sync for status in statuses)
    return ExitCode.DIFFERENT if checks and not is_good else ExitCode.DONE


def _watch(read: Callable[[], Shown], text: Callable[[Shown], str], *, is_drawn: bool) -> ExitCode:
    """Print each change, until nobody can read on; or draw on the whole terminal again and again, as watch(1) does.

    What was on the terminal scrolls up; the last screen stays. It is right again after a resize and a Ctrl-Z. Ends when
    a person types `q` there, or Ctrl-C.
    """
    last, poll = None, select.poll()
    poll.register(1, 0)  # for errors alone, as of a pipe whose reader has ended
    with suppress(KeyboardInterrupt), _unseen_keys(poll) if is_drawn else nullcontext():
        if is_drawn:
            print("\n" * terminal_size(sys.stdout).lines, end="")
        while stdout_failure() is None:
            shown = read()
            if is_drawn:
                _draw(text(shown).split("\n"), max(1, terminal_size(sys.stdout).lines - 1))
            elif shown != last:
                print(text(shown), flush=True)
                last = shown
            ready = dict(CLOCK.poll(poll, _REDRAW_S))
            if 1 in ready or (0 in ready and b"q" in os.read(0, 64)):
                break
    discard_stdout()  # a Ctrl-C may have come in a write to a full pipe
    return ExitCode.DONE


def _draw(lines: list[str], room: int) -> None:
    """Draw as many of the lines as there is room for; where some have none, the last line says so.

    On a very narrow terminal a line is cut, as one more would scroll the first away.
    """
    if len(lines) > room:
        more = counted(len(lines) - room + 1, "more line")
        lines = [*lines[: room - 1], f"  and {more}, on a terminal with more rows"]
    screen = "".join(f"{line}\x1b[K\n" for line in lines)
    print(f"\x1b[H\x1b[?7l{screen}\x1b[J\x1b[?7h", end="", flush=True)


@contextmanager
def _unseen_keys(poll: select.poll) -> Iterator[None]:
    """Have a key that is typed on the terminal end the poll at once, unseen."""
    before = termios.tcgetattr(0) if os.isatty(0) else None
    if before is not None:
        tty.setcbreak(0, termios.TCSANOW)
        poll.register(0, select.POLLIN)
    try:
        yield
    finally:
        if before is not None:
            termios.tcsetattr(0, termios.TCSANOW, before)


def _all_text(rows: tuple[WorkspaceRow, ...]) -> str:
    if not rows:
        return f"no configuration in {home_relative(config_folder(os.environ))} yet: `syncd init` writes one"
    return _written(table(rows, CLOCK.wall_s(), text_width(sys.stdout, _WIDEST)))


def _written(lines: list[str]) -> str:
    return "\n".join(written(line, sys.stdout) for line in lines)


def _all_json(rows: tuple[WorkspaceRow, ...]) -> str:
    """Status documents with the configuration's file and name."""

    def document(row: WorkspaceRow) -> dict[str, Any]:
        of_row = {"config": row.config, "name": row.name}
        if row.status is None:
            return {**of_row, "error": row.problem}
        status = row.status.document()
        return {**status, **of_row, "warnings": [*status["warnings"], *filter(None, [row.problem])]}

    overview = {"version": _OVERVIEW_VERSION, "workspaces": list(map(document, rows))}
    return _json(overview)
