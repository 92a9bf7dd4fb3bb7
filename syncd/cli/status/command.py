"""`syncd status`: the status document, for people or for programs, with or without a running daemon."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import click

from syncd import __version__
from syncd.cli.options import CLOCK, config_option, config_path, configured, json_option
from syncd.cli.output import discard_stdout
from syncd.cli.status.subject import Subject
from syncd.core.errors import Stop
from syncd.core.interrupt import Interrupt, interrupting
from syncd.report.status_store import encoded
from syncd.sync.status_document import Status

_REDRAW_S = 0.5
_WIDTH = 79  # some terminals begin a new line after a full one of 80
_NARROWEST = 40


@click.command("status")
@config_option
@json_option
@click.option("--metrics", "as_metrics", is_flag=True, help="For monitoring: OpenMetrics text on stdout.")
@click.option("--watch", is_flag=True, help="Keep running, and show it as it changes, until Ctrl-C.")
def command(config_file: str | None, as_json: bool, as_metrics: bool, watch: bool) -> None:
    """Show what the daemon is doing and did last."""
    if as_metrics and (as_json or watch):
        raise click.UsageError("--metrics goes with neither --json nor --watch.")
    subject = Subject(config_path(config_file), configured(config_file))
    if as_metrics:
        from syncd.report.metrics import exposition  # noqa: PLC0415 - for this output alone

        click.echo(exposition(subject.inquiry.status(), CLOCK.wall_s(), __version__), nl=False)
        return
    shown = _as_json if as_json else _as_text
    if not watch:
        click.echo(shown(subject))
        return
    interrupt = Interrupt()
    try:
        with interrupting(interrupt, (signal.SIGINT,)):
            if as_json or not _is_terminal():
                _follow(subject, shown, interrupt)
            else:
                _redraw(subject, interrupt)
    except (Stop, KeyboardInterrupt):  # the usual end
        discard_stdout()


def _as_json(subject: Subject) -> str:
    return encoded(subject.inquiry.status()).decode()


def _as_text(subject: Subject) -> str:
    return "\n".join(_lines(subject, subject.inquiry.status()))


def _lines(subject: Subject, status: Status) -> list[str]:
    from syncd.cli.status.screen import screen  # noqa: PLC0415 - for people alone
    from syncd.cli.status.text import ASCII, UNICODE, coloured, fitted, plain  # noqa: PLC0415 - as above

    encoding = sys.stdout.encoding or "ascii"
    is_terminal = _is_terminal()
    width = max(_NARROWEST, min(_WIDTH, _size()[0] - 1)) if is_terminal else _WIDTH
    glyphs = UNICODE if encoding.lower().replace("-", "") == "utf8" else ASCII
    lines = screen(status, subject.inquiry.context(status), CLOCK.wall_s(), width, glyphs)
    written = coloured if is_terminal and not os.environ.get("NO_COLOR") else plain
    return [fitted(written(line), encoding) for line in lines]


def _is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _size() -> tuple[int, int]:
    """The terminal's columns and rows; 80 and 24 if unknown."""
    columns, rows = os.get_terminal_size(sys.stdout.fileno())
    return columns or 80, rows or 24


def _follow(subject: Subject, shown: Callable[[Subject], str], interrupt: Interrupt) -> None:
    """Print the document to a pipe each time that it changes."""
    last: Status | None = None
    while True:
        with interrupt.region():  # all of it: a write to a full pipe waits, too
            subject.refresh()
            status = subject.inquiry.status()
            if status != last:
                click.echo(shown(subject))
                sys.stdout.flush()
                last = status
            CLOCK.sleep(_REDRAW_S)


def _redraw(subject: Subject, interrupt: Interrupt) -> None:
    from syncd.cli.status.live import Live  # noqa: PLC0415 - for a terminal alone

    with Live() as live:
        while True:
            with interrupt.region():
                subject.refresh()
                live.show(_lines(subject, subject.inquiry.status()), _size())
                CLOCK.sleep(_REDRAW_S)
