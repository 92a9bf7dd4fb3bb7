"""`syncd status`: the status document, for people or for programs, with or without a running daemon."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from msgspec import structs

from syncd.cli.interruption import discard_stdout
from syncd.cli.options import CLOCK, config_option, config_path, configured, json_option
from syncd.cli.output import home_relative, is_screen, stdout_failure, terminal_size, text_width
from syncd.cli.status.reader import StatusReader, WorkspaceRow, read_all, reader_for
from syncd.core.config_file import config_folder
from syncd.core.errors import ConfigError, ExitCode
from syncd.core.text import counted, printable_json
from syncd.report.status_store import encoded
from syncd.sync.status_document import Status

Shown = TypeVar("Shown")

_WIDTH = 79  # some terminals begin a new line after a full one of 80
_WIDEST = 10_000
_OVERVIEW_VERSION = 1
_REDRAW_S = 0.5
_LEAST_TOLD = 3  # lines of a screen, of which one is told from; a lower one has none to spare


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
    syncd status --watch             as it changes
    syncd status --all               every workspace, a line each
    """
    if checks and watch:
        raise click.UsageError("--check goes without --watch.")
    if all_ and config_file:
        raise click.UsageError("--all goes without --config.")
    if all_:
        rows = _show(read_all, _all_json if as_json else _all_text, watch=watch, as_json=as_json)
        return _code(checks, [row.status for row in rows])
    path = config_path(config_file)
    reader = reader_for(path, lambda _path: configured(config_file))

    def read() -> tuple[Status, int | None]:
        nonlocal reader
        if watch:
            reader = reader_for(path, lambda _path: configured(config_file))
        status = reader.status()
        # A daemon that is ending still holds the workspace when its last document is read.
        return status, None if as_json else reader.busy_pid(status)

    def text(shown: tuple[Status, int | None]) -> str:
        return printable_json(encoded(shown[0]).decode()) if as_json else _text(reader, *shown)

    status, _ = _show(read, text, watch=watch, as_json=as_json)
    return _code(checks, [status], None if watch else reader.problem)


def _code(checks: bool, statuses: Sequence[Status | None], problem: ConfigError | None = None) -> ExitCode:
    """The exit code after the output. Raises the problem, if there is one."""
    if problem is not None:
        raise problem
    is_good = bool(statuses) and all(status is not None and status.in_sync for status in statuses)
    return ExitCode.DIFFERENT if checks and not is_good else ExitCode.DONE


def _show(read: Callable[[], Shown], text: Callable[[Shown], str], *, watch: bool, as_json: bool) -> Shown:
    """Print the text of what is read, and return that; with `watch` until a person ends it, each time that it changes.

    On a terminal it is drawn anew; with `as_json` a terminal is a pipe.
    """
    shown = read()
    try:
        if not watch:
            print(text(shown))
        elif as_json or not is_screen(sys.stdout):
            _print_changes(read, text)
        else:
            _redraw(lambda: text(read()))
    except KeyboardInterrupt:  # the usual end of a watch, in a write to a full pipe too
        if not watch:
            raise
        discard_stdout()
    return shown


def _print_changes(read: Callable[[], Shown], text: Callable[[Shown], str]) -> None:
    last: Shown | None = None
    reader = select.poll()
    reader.register(1, 0)  # for errors alone, as of a pipe whose reader has ended
    while True:
        shown = read()
        if shown != last:
            print(text(shown), flush=True)
            last = shown
        if stdout_failure() is not None or CLOCK.poll(reader, _REDRAW_S):  # nobody can read on
            return


def _redraw(text: Callable[[], str]) -> None:
    """Draw on the whole terminal again and again, as watch(1) does, until `q` is typed or a signal comes.

    What was there scrolls up; the last screen stays. It is right again after a resize and a Ctrl-Z. On a very narrow
    terminal a line is cut, as one more would scroll the first away.
    """
    print("\n" * terminal_size(sys.stdout).lines, end="")
    with _typed_keys() as typed:
        while True:
            lines = _fitting(text().split("\n"), terminal_size(sys.stdout).lines - 1)
            screen = "".join(f"{line}\x1b[K\n" for line in lines)
            print(f"\x1b[H\x1b[?7l{screen}\x1b[J\x1b[?7h", end="", flush=True)
            if b"q" in typed(_REDRAW_S):
                return


def _fitting(lines: list[str], room: int) -> list[str]:
    """As many of the lines as there is room for; where some have none, the last line says so."""
    if len(lines) <= room or room < _LEAST_TOLD:
        return lines[:room]
    return [*lines[: room - 1], f"  and {counted(len(lines) - room + 1, 'more line')}, on a terminal with more rows"]


@contextmanager
def _typed_keys() -> Iterator[Callable[[float], bytes]]:
    """Give what waits so many seconds for keys on the terminal, and returns them: each at once, and unseen."""
    poll = select.poll()
    before = termios.tcgetattr(0) if os.isatty(0) else None
    if before is not None:
        tty.setcbreak(0, termios.TCSANOW)
        poll.register(0, select.POLLIN)
    try:
        yield lambda seconds: os.read(0, 64) if CLOCK.poll(poll, seconds) else b""
    finally:
        if before is not None:
            termios.tcsetattr(0, termios.TCSANOW, before)


def _text(reader: StatusReader, status: Status, busy_pid: int | None) -> str:
    from syncd.cli.status.screen import screen  # noqa: PLC0415 - for people alone

    status = structs.replace(status, workspace=home_relative(status.workspace))
    return _written(screen(status, reader.context(status, busy_pid), CLOCK.wall_s(), text_width(sys.stdout, _WIDTH)))


def _all_text(rows: tuple[WorkspaceRow, ...]) -> str:
    from syncd.cli.status.screen import table  # noqa: PLC0415 - for people alone

    if not rows:
        return f"no configuration in {config_folder(os.environ)} yet: `syncd init` writes one"
    return _written(table(rows, CLOCK.wall_s(), text_width(sys.stdout, _WIDEST)))


def _written(lines: list[str]) -> str:
    from syncd.cli.layout import written  # noqa: PLC0415 - for people alone

    return "\n".join(written(line, sys.stdout) for line in lines)


def _all_json(rows: tuple[WorkspaceRow, ...]) -> str:
    """Status documents with the configuration's file and name."""
    import msgspec  # noqa: PLC0415 - for many alone

    def document(row: WorkspaceRow) -> dict[str, Any]:
        of_row = {"config": row.config, "name": row.name}
        if row.status is None:
            return {**of_row, "error": row.problem}
        status = row.status.document()
        return {**of_row, **status, "warnings": [*status["warnings"], *filter(None, [row.problem])]}

    overview = {"version": _OVERVIEW_VERSION, "workspaces": list(map(document, rows))}
    return printable_json(msgspec.json.encode(overview).decode())
