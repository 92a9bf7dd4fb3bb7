"""How `syncd service` shows what it knows: a name and a text in each row, fit for a narrow terminal and for a pipe."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable

import click

from syncd.cli.service.report import Report
from syncd.core.text import one_line, redacted

_COLOURS = {0: "green", 75: "yellow", 78: "red"}
_NAME, _GAP = 10, 2
_NARROWEST = 40
# `journalctl --output=short --no-hostname`: who wrote the line is one of two, and each line tells which by itself.
_WRITER = re.compile(r"(\w{3} \d\d \d\d:\d\d:\d\d) [^\]]*\[\d+\]: ")
# Where another command begins: on a line of its own it can be copied.
_STEP = re.compile(r"[;,]? (?=(?:then|or at once|to keep it): )")


def headline(unit: str, now: Report) -> tuple[str, str]:
    """The row that says how the service is, in the colour of what is to be thought of it."""
    return "service", f"{unit}: {click.style(_harmless(now.how), fg=_COLOURS[now.exit_code], bold=True)}"


def log_rows(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Lines of the journal, each with its time."""
    return [("log", _harmless(_WRITER.sub(r"\1 ", line, count=1))) for line in lines]


def to_do_rows(remedy: str) -> list[tuple[str, str]]:
    """A remedy, each further step in a row of its own; none where there is nothing to do."""
    steps = _STEP.split(_harmless(remedy)) if remedy else []
    return [("" if number else "to do", step) for number, step in enumerate(steps)]


def show(rows: Iterable[tuple[str, str]]) -> None:
    """Write rows to stdout. On a terminal what is to be read is folded; what is to be copied never is."""
    width = max(_NARROWEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None
    colour = False if os.environ.get("NO_COLOR") else None
    for name, text in rows:
        lines = [text]
        if width is not None and name in ("log", "note", "last end"):
            lines = textwrap.wrap(text, width - _NAME - _GAP, break_on_hyphens=False) or [""]
        for number, line in enumerate(lines):
            label = click.style(f"{'' if number else name:{_NAME}}", dim=True)
            click.echo(f"{label}{'':{_GAP}}{line}", color=colour)


def _harmless(text: str) -> str:
    return one_line(redacted(text), 1000)
