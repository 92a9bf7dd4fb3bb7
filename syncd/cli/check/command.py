"""`syncd check`: tests everything that a sync needs, and says how to fix what fails. Changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable
from enum import Enum

import click
from msgspec import Struct
from msgspec.structs import replace

from syncd.cli.layout import Tone, styled, wrapped
from syncd.cli.options import config_option, json_option
from syncd.core.errors import ExitCode, SyncdError
from syncd.core.text import counted, redacted, shown_path

_INDENT = 21  # columns of the grade and the subject
_MAX_COLUMNS = 120
_MAX_LENGTH = 1000
_UNWRAPPED = 1_000_000  # a line each in a pipe, for grep


class Grade(Enum):
    """The word that a finding is shown with, the exit code that it causes, and the role of its word."""

    PASS = ("pass", ExitCode.DONE, Tone.GOOD)
    NOTE = ("note", ExitCode.DONE, Tone.BUSY)  # neither good nor bad
    WARN = ("warn", ExitCode.DONE, Tone.ATTENTION)  # syncing works, but not as well as it could
    FAIL_FOR_NOW = ("fail", ExitCode.TRY_LATER, Tone.BAD)
    FAIL = ("fail", ExitCode.NEEDS_PERSON, Tone.BAD)

    def __init__(self, word: str, exit_code: ExitCode, tone: Tone) -> None:
        self.word = word
        self.exit_code = exit_code
        self.tone = tone


class Finding(Struct, frozen=True):
    """One line about `subject`: `what` was found, and `remedy`, what to do about it (may be empty).

    `details` are the first few of the things that `what` counts, a line each.
    """

    subject: str
    grade: Grade
    what: str
    remedy: str = ""
    details: tuple[str, ...] = ()


def failed(subject: str, failure: SyncdError) -> Finding:
    """The finding about an error, which may end by itself or not."""
    grade = Grade.FAIL if failure.exit_code == ExitCode.NEEDS_PERSON else Grade.FAIL_FOR_NOW
    return Finding(subject, grade, failure.message, failure.hint)


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
        rows = [{name: getattr(each, name) for name in each.__struct_fields__} for each in shown]
        rows = [{**row, "grade": row["grade"].word} for row in rows]
        click.echo(json.dumps({"version": 1, "exit_code": code, "findings": rows}))
    else:
        click.echo(summary(findings))
    if report_file is not None:
        from syncd.cli.check.checkup import write_report  # noqa: PLC0415 - only for a report

        path, lines = write_report(report_file, checkup, findings)
        click.echo(f"wrote {shown_path(path)}, {lines} lines of text: read it before you pass it on", err=as_json)
    return code


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """0 if nothing failed, 75 if every failure may end by itself, else 78."""
    return max((finding.grade.exit_code for finding in findings), default=ExitCode.DONE)


def summary(findings: Iterable[Finding]) -> str:
    """The number of findings of each grade, in one line."""
    words = [finding.grade.word for finding in findings]
    failures, warnings, passed = words.count("fail"), words.count("warn"), words.count("pass")
    parts = [f"{failures} failed"] if failures else []
    parts += [counted(warnings, "warning")] if warnings else []
    return ", ".join([*parts, f"{passed} passed"]) if parts else f"all checks passed ({passed})"


def _printable(finding: Finding, secret: str) -> Finding:
    """The finding with each text on one line and redacted; blanks that align columns are kept."""

    def printable(text: str) -> str:
        text = shown_path(redacted(" ".join(text.splitlines()), secret))
        return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"

    details = tuple(map(printable, finding.details))
    return replace(finding, what=printable(finding.what), remedy=printable(finding.remedy), details=details)


def _lines(finding: Finding) -> list[str]:
    """The lines of a finding: wrapped to the width of a terminal, with `~`; one line each in a pipe."""
    home, width = "(?!)", _UNWRAPPED
    if sys.stdout.isatty():
        home = rf"(?<!\S){re.escape(os.path.expanduser('~'))}(?=/)"
        width = min(shutil.get_terminal_size().columns, _MAX_COLUMNS)
    rows = [(f"{styled(finding.grade.word, finding.grade.tone)}  {finding.subject:15}", finding.what)]
    rows += [(" " * (_INDENT + 2), detail) for detail in finding.details]
    rows += [(f"{'to do:':>19}  ", finding.remedy)] if finding.remedy else []
    return [line for label, text in rows for line in wrapped(re.sub(home, "~", text), width, label, _INDENT)]
