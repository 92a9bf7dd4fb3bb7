"""Prints the output of `syncd service` as rows of a name and a text, for a narrow terminal and for a pipe."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable

import click

from syncd.cli.service.report import Report
from syncd.core.errors import ExitCode
from syncd.core.text import one_line, redacted

_COLOURS = {ExitCode.DONE: "green", ExitCode.TRY_LATER: "yellow", ExitCode.NEEDS_PERSON: "red"}
_NAME, _GAP = 10, 2
_NARROWEST = 40
# The program and pid in a line of `journalctl --output=short --no-hostname`; each line shows by itself whose it is.
_WRITER = re.compile(r"(\w{3} \d\d \d\d:\d\d:\d\d) [^\]]*\[\d+\]: ")
# The place before another command: on a line of its own it can be copied.
_STEP = re.compile(r"[;,]? (?=(?:then|or at once|to keep it)[:,] )")


def headline(unit: str, now: Report) -> tuple[str, str]:
    """The row with the state of the service, in the colour of its exit code."""
    return "service", f"{unit}: {click.style(_printable(now.state), fg=_COLOURS[now.exit_code], bold=True)}"


def log_rows(lines: Iterable[str]) -> list[tuple[str, str]]:
    """The rows for lines of the journal, each with its time."""
    return [("log", _printable(_WRITER.sub(r"\1 ", line, count=1))) for line in lines]


def to_do_rows(remedy: str) -> list[tuple[str, str]]:
    """The rows for a remedy, a step each; none if there is nothing to do."""
    steps = _STEP.split(_printable(remedy)) if remedy else []
    return [("" if number else "to do", step) for number, step in enumerate(steps)]


def show(rows: Iterable[tuple[str, str]]) -> None:
    """Print rows. On a terminal long text is wrapped, but commands to be copied are not."""
    width = max(_NARROWEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None
    for name, text in rows:
        lines = [text]
        if width is not None and name in ("log", "note", "last end"):
            lines = textwrap.wrap(text, width - _NAME - _GAP, break_on_hyphens=False) or [""]
        for number, line in enumerate(lines):
            label = click.style(f"{'' if number else name:{_NAME}}", dim=True)
            click.echo(f"{label}{'':{_GAP}}{line}")


def _printable(text: str) -> str:
    return one_line(redacted(text), 1000)
