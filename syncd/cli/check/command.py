"""`syncd check`: tests everything that a sync needs, and says how to fix what fails. Changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys

import click
from msgspec.structs import replace

from syncd.cli.check.finding import Finding, Grade, exit_code, summary
from syncd.cli.layout import Line, Tone, print_lines, wrapped
from syncd.cli.options import config_option, json_option
from syncd.core.text import redacted, shown_path

_TONES = {
    Grade.PASS: Tone.GOOD,
    Grade.NOTE: Tone.BUSY,
    Grade.WARN: Tone.ATTENTION,
    Grade.FAIL_FOR_NOW: Tone.BAD,
    Grade.FAIL: Tone.BAD,
}
# Columns: the grade, the subject, the text.
_GRADE = 6
_SUBJECT = 15
_TEXT = _GRADE + _SUBJECT
_MAX_COLUMNS = 120
_ANY_WIDTH = 1 << 20  # for a pipe: one line for each finding, for grep
_MAX_LENGTH = 1000


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
    from syncd.cli.check.checks import Checks  # noqa: PLC0415 - not needed for `check --help`

    checkup = Checks(config_file)
    findings = []
    for finding in checkup.findings():
        findings.append(finding)
        if not as_json:
            _show(finding, checkup.secret)
    code = exit_code(findings)
    if as_json:
        rows = [_row(finding, checkup.secret) for finding in findings]
        click.echo(json.dumps({"version": 1, "exit_code": code, "findings": rows}))
    else:
        click.echo(summary(findings))
    if report_file is not None:
        from syncd.cli.check.report import write_report  # noqa: PLC0415 - only for a report

        path, lines = write_report(report_file, checkup, findings)
        click.echo(f"wrote {shown_path(path)}, {lines} lines of text: read it before you pass it on", err=as_json)
    return code


def _row(finding: Finding, secret: str) -> dict[str, object]:
    return {
        "subject": finding.subject,
        "grade": finding.grade.word,
        "what": _printable(finding.what, secret),
        "remedy": _printable(finding.remedy, secret),
        "details": [_printable(detail, secret) for detail in finding.details],
    }


def _show(finding: Finding, secret: str) -> None:
    is_terminal = sys.stdout.isatty()
    width = min(shutil.get_terminal_size().columns, _MAX_COLUMNS) if is_terminal else _ANY_WIDTH
    if is_terminal:
        finding = replace(finding, what=_short(finding.what), remedy=_short(finding.remedy, before=r"(?<!\S)"))
    print_lines(lines_of(finding, secret, width))


def lines_of(finding: Finding, secret: str, width: int) -> list[Line]:
    """The lines of a finding, wrapped to `width` columns; `secret` is the API key, which is redacted."""
    head: Line = (
        (finding.grade.word, _TONES[finding.grade]),
        (f"{'':{_GRADE - 4}}{finding.subject:{_SUBJECT}}", Tone.PLAIN),
    )
    lines = wrapped(_printable(finding.what, secret), width, head, _TEXT)
    for detail in finding.details:
        text = _printable(detail, secret)
        words = text.lstrip(" ")
        indent = _TEXT + 2 + len(text) - len(words)
        lines += wrapped(words, width, ((" " * indent, Tone.PLAIN),), _TEXT + 4)
    if finding.remedy:
        label = f"{'to do:':>{_TEXT - 2}}  "
        lines += wrapped(_printable(finding.remedy, secret), width, ((label, Tone.PLAIN),), _TEXT)
    return lines


def _short(text: str, before: str = r"(?<![\w/.-])") -> str:
    """The text with `~` for the home directory, but not within quotes, where a shell would not expand it."""
    home = os.path.expanduser("~")
    return re.sub(rf"{before}{re.escape(home)}(?=/)", "~", text) if len(home) > 1 else text


def _printable(text: str, secret: str) -> str:
    """The text on one line, redacted; blanks that align columns are kept."""
    text = redacted(" ".join(text.splitlines()), secret)
    text = shown_path(text).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"
