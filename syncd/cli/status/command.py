"""`syncd status`: the status document, for people or for programs, with or without a running daemon."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from syncd import __version__
from syncd.cli.interruption import discard_stdout
from syncd.cli.options import CLOCK, config_option, config_path, configured, json_option
from syncd.cli.output import is_screen, may_colour, stdout_failure
from syncd.cli.status.subject import Subject
from syncd.core.config_lookup import config_folder
from syncd.core.errors import Stop
from syncd.core.interrupt import Interrupt, interrupting
from syncd.core.text import printable_json
from syncd.report.status_store import encoded
from syncd.sync.status_document import Status

if TYPE_CHECKING:
    from syncd.cli.status.overview import WorkspaceRow
    from syncd.cli.status.text import Glyphs, Line

Shown = TypeVar("Shown")

_REDRAW_S = 0.5
_WIDTH = 79  # some terminals begin a new line after a full one of 80
_NARROWEST = 40


@click.command("status")
@config_option
@json_option
@click.option("--metrics", "as_metrics", is_flag=True, help="For monitoring: OpenMetrics text on stdout.")
@click.option("--watch", is_flag=True, help="Keep running, and show it as it changes, until Ctrl-C.")
@click.option("--all", "all_", is_flag=True, help="A line for each configuration in ~/.config/syncd.")
def command(config_file: str | None, as_json: bool, as_metrics: bool, watch: bool, all_: bool) -> None:
    """Show what the daemon is doing and did last."""
    if as_metrics and (as_json or watch):
        raise click.UsageError("--metrics goes with neither --json nor --watch.")
    if all_ and (as_metrics or config_file):
        raise click.UsageError("--all goes with neither --metrics nor --config.")
    if as_metrics:
        from syncd.report.metrics import exposition  # noqa: PLC0415 - for this output alone

        status = Subject(config_path(config_file), configured(config_file)).inquiry.status()
        click.echo(exposition(status, CLOCK.wall_s(), __version__), nl=False)
    elif all_:
        from syncd.cli.status.overview import Overview, encoded_rows  # noqa: PLC0415 - for many alone

        _show(Overview(os.environ).read, encoded_rows if as_json else None, _table_lines, watch=watch)
    else:
        subject = Subject(config_path(config_file), configured(config_file))
        as_document = (lambda status: printable_json(encoded(status).decode())) if as_json else None
        _show(subject.read, as_document, lambda status: _screen_lines(subject, status), watch=watch)


def _show(
    read: Callable[[], Shown],
    as_json: Callable[[Shown], str] | None,
    lines: Callable[[Shown], list[str]],
    *,
    watch: bool,
) -> None:
    """Print what is read, as JSON or as lines; with `watch` until Ctrl-C, each time that it changes."""
    text = as_json or (lambda document: "\n".join(lines(document)))
    if not watch:
        click.echo(text(read()))
        return
    interrupt = Interrupt()
    try:
        with interrupting(interrupt, (signal.SIGINT,)):
            if as_json or not is_screen(sys.stdout):
                _follow(read, text, interrupt)
            else:
                _redraw(lambda: lines(read()), interrupt)
    except (Stop, KeyboardInterrupt):  # the usual end
        discard_stdout()


def _screen_lines(subject: Subject, status: Status) -> list[str]:
    from syncd.cli.status.screen import screen  # noqa: PLC0415 - for people alone

    width = min(_WIDTH, _width() or _WIDTH)
    lines = screen(status, subject.inquiry.context(status), CLOCK.wall_s(), width, _glyphs())
    return _written(lines)


def _table_lines(rows: tuple[WorkspaceRow, ...]) -> list[str]:
    from syncd.cli.status.table import table  # noqa: PLC0415 - for people alone

    if not rows:
        return [f"no configuration in {config_folder(os.environ)} yet: `syncd init` writes one"]
    return _written(table(rows, os.path.realpath(os.path.expanduser("~")), CLOCK.wall_s(), _width(), _glyphs()))


def _written(lines: Sequence[Line]) -> list[str]:
    from syncd.cli.status.text import coloured, fitted, plain  # noqa: PLC0415 - as above

    write = coloured if is_screen(sys.stdout) and may_colour() else plain
    return [fitted(write(line), _encoding()) for line in lines]


def _glyphs() -> Glyphs:
    from syncd.cli.status.text import ASCII, UNICODE  # noqa: PLC0415 - as above

    return UNICODE if _encoding().lower().replace("-", "") == "utf8" else ASCII


def _encoding() -> str:
    return sys.stdout.encoding or "ascii"


def _width() -> int | None:
    """The columns that a line may take on this terminal; None on a pipe."""
    return max(_NARROWEST, _size()[0] - 1) if is_screen(sys.stdout) else None


def _size() -> tuple[int, int]:
    """The terminal's columns and rows; 80 and 24 if unknown."""
    columns, rows = os.get_terminal_size(sys.stdout.fileno())
    return columns or 80, rows or 24


def _follow(read: Callable[[], Shown], text: Callable[[Shown], str], interrupt: Interrupt) -> None:
    """Print the document to a pipe each time that it changes."""
    last: Shown | None = None
    while True:
        with interrupt.region():  # all of it: a write to a full pipe waits, too
            document = read()
            if document != last:
                click.echo(text(document))
                last = document
            if stdout_failure() is not None:  # nobody can read on
                return
            CLOCK.sleep(_REDRAW_S)


def _redraw(lines: Callable[[], list[str]], interrupt: Interrupt) -> None:
    from syncd.cli.status.live import Live  # noqa: PLC0415 - for a terminal alone

    with Live() as live:
        while True:
            with interrupt.region():
                live.show(lines(), _size())
                CLOCK.sleep(_REDRAW_S)
