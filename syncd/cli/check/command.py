"""`syncd check`: tests everything that a sync needs, and says how to fix what fails. Changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap

import click

from syncd.cli.check.finding import Finding, Grade, exit_code, summary
from syncd.cli.options import config_option, json_option
from syncd.core.text import redacted, shown_path

_COLOURS = {
    Grade.PASS: "green",
    Grade.NOTE: "cyan",
    Grade.WARN: "yellow",
    Grade.FAIL_FOR_NOW: "red",
    Grade.FAIL: "red",
}
_BLANK = " " * 21  # what stands before the text: the grade and the subject
_MAX_COLUMNS = 120
_MAX_LENGTH = 1000
_COMMAND = re.compile(r"`[^`]+`")
_NO_BREAK = "\0"  # no text that is shown has it


@click.command("check")
@config_option
@json_option
@click.option(
    "--report",
    "report_file",
    metavar="[FILE]",
    is_flag=False,
    flag_value="",
    help="Also write what a bug report needs into a new text file; default: ~/syncd-report-TIME.txt.",
)
def command(config_file: str | None, as_json: bool, report_file: str | None) -> int:
    """Test everything that a sync needs, and say how to fix what fails. Nothing of yours is sent, nothing is changed.

    Ends with 0 if nothing failed, 75 if only the network or a server did, else 78. --json: an object with exit_code and
    findings, each with subject, grade (pass, note, warn, fail), what, remedy and details.

    A report holds no name, path, address, id, key, message or content of yours, only facts, numbers and times. Read it
    all before you pass it on; nothing sends it for you.
    """
    from syncd.cli.check.checkup import Checkup  # noqa: PLC0415 - not needed for `check --help`

    checkup = Checkup(config_file)
    findings, shown = [], []
    for finding in checkup.findings():
        findings.append(finding)
        shown.append(_printable(finding, checkup.secret))
        if not as_json:
            click.echo("\n".join(_lines(shown[-1])))
    code = exit_code(findings)
    if as_json:
        click.echo(json.dumps({"version": 1, "exit_code": code, "findings": [*map(_row, shown)]}))
    else:
        click.echo(summary(findings))
    if report_file is not None:
        from syncd.cli.check.report import write_report  # noqa: PLC0415 - only for a report

        path, lines = write_report(report_file, checkup, findings)
        click.echo(f"wrote {shown_path(path)}, {lines} lines of text: read it before you pass it on", err=as_json)
    return code


def _printable(finding: Finding, secret: str) -> Finding:
    """The finding with each text on one line and redacted; blanks that align columns are kept."""

    def printable(text: str) -> str:
        text = shown_path(redacted(" ".join(text.splitlines()), secret))
        return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"

    details = tuple(map(printable, finding.details))
    return Finding(finding.subject, finding.grade, printable(finding.what), printable(finding.remedy), details)


def _row(finding: Finding) -> dict[str, object]:
    return {
        "subject": finding.subject,
        "grade": finding.grade.word,
        "what": finding.what,
        "remedy": finding.remedy,
        "details": finding.details,
    }


def _lines(finding: Finding) -> list[str]:
    """The lines of a finding: wrapped to the width of a terminal, with `~`; one line each in a pipe, for grep."""
    word = click.style(finding.grade.word, fg=_COLOURS[finding.grade], bold=True)
    rows = [(f"{word}  {finding.subject:15}", finding.what)]
    rows += [(_BLANK, f"  {detail}") for detail in finding.details]
    rows += [(f"{'to do:':>19}  ", finding.remedy)] if finding.remedy else []
    if not sys.stdout.isatty():
        return [label + text for label, text in rows]
    home = re.compile(rf"(?<!\S){re.escape(os.path.expanduser('~'))}(?=/)")
    width = max(8, min(shutil.get_terminal_size().columns, _MAX_COLUMNS) - len(_BLANK))
    lines = []
    for label, text in rows:
        # A command stays on one line, to be copied.
        unbroken = _COMMAND.sub(lambda found: found[0].replace(" ", _NO_BREAK), home.sub("~", text))
        first, *others = textwrap.wrap(unbroken, width, break_on_hyphens=False) or [""]
        lines += [label + first, *(_BLANK + other for other in others)]
    return [line.replace(_NO_BREAK, " ") for line in lines]
