"""`syncd check`: tests everything that a sync needs, and says how to fix what fails. Changes nothing."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import Enum
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

import click
from msgspec import Struct
from msgspec.structs import replace

from syncd import __version__
from syncd.cli.layout import Tone, styled, wrapped
from syncd.cli.options import CLOCK, config_option, json_option
from syncd.core.clock import stamp
from syncd.core.errors import ExitCode, SyncdError
from syncd.core.text import counted, redacted, shown_path
from syncd.remote.failure import ApiStep
from syncd.watch.inotify_watch import watch_limit
from syncd.watch.mounts import filesystem_type

if TYPE_CHECKING:
    from syncd.cli.check.checkup import Checkup

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
@click.option("--report", is_flag=True, help="Print what a bug report needs instead, without names of yours.")
def command(config_file: str | None, as_json: bool, report: bool) -> int:
    """Test everything that a sync needs, and say how to fix what fails. Nothing of yours is sent, nothing is changed.

    Ends with 0 if nothing failed, 75 if only the network or a server did, else 78. --json: an object with exit_code and
    findings, each with subject, grade (pass, note, warn, fail), what, remedy and details.

    A report holds no name, path, address, id, key, message or content of yours, only facts, numbers and times. Read it
    all before you pass it on; nothing sends it for you.
    """
    from syncd.cli.check.checkup import Checkup  # noqa: PLC0415 - not needed for `check --help`

    if report and as_json:
        raise click.UsageError("--report goes without --json.")
    checkup = Checkup(config_file)
    findings = []
    for finding in checkup.findings():
        findings.append(printable(finding, checkup.secret))
        if not (as_json or report):
            click.echo("\n".join(finding_lines(findings[-1])))
    code = exit_code(findings)
    if as_json:
        rows = [{name: getattr(each, name) for name in each.__struct_fields__} for each in findings]
        rows = [{**row, "grade": row["grade"].word} for row in rows]
        click.echo(json.dumps({"version": 1, "exit_code": code, "findings": rows}))
    else:
        click.echo(_report(checkup, findings) if report else summary(findings))
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


def printable(finding: Finding, secret: str = "") -> Finding:
    """The finding with each text on one line and redacted; blanks that align columns are kept."""

    def shown(text: str) -> str:
        text = shown_path(redacted(" ".join(text.splitlines()), secret))
        return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"

    details = tuple(map(shown, finding.details))
    return replace(finding, what=shown(finding.what), remedy=shown(finding.remedy), details=details)


def finding_lines(finding: Finding) -> list[str]:
    """The lines of a finding: wrapped to the width of a terminal, with `~`; one line each in a pipe."""
    home, width = "(?!)", _UNWRAPPED
    if sys.stdout.isatty():
        home = rf"(?<!\S){re.escape(os.path.expanduser('~'))}(?=/)"
        width = min(shutil.get_terminal_size().columns, _MAX_COLUMNS)
    rows = [(f"{styled(finding.grade.word, finding.grade.tone)}  {finding.subject:15}", finding.what)]
    rows += [(" " * (_INDENT + 2), detail) for detail in finding.details]
    rows += [(f"{'to do:':>19}  ", finding.remedy)] if finding.remedy else []
    return [line for label, text in rows for line in wrapped(re.sub(home, "~", text), width, label, _INDENT)]


# -- the report: what is shown of a value is decided by its type: a number, a switch, a choice or a time as it is, of
# all else only if it is set, or how much it holds. So a message, which may name a path or an address, is in no field.

Row = tuple[str, str]

_PUBLIC = frozenset({*ApiStep, "https://api.klavis.ai", "https://api.eu.klavis.ai"})
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
_HEAD = """syncd report, {at}

It holds numbers, times and words of syncd's own: no name, path, address, id, key or message.
Read it to the end before you pass it on.
"""


def _report(checkup: Checkup, findings: Iterable[Finding]) -> str:
    config = checkup.config
    scan = checkup.scan
    rows = [*_machine(), *((finding.subject, finding.grade.word) for finding in findings)]
    if config is not None:
        rows += [("file system", filesystem_type(config.workspace.path) or "unknown"), *_facts("configuration", config)]
    if scan is not None:
        kinds = Counter(entry.kind.name.lower() for entry in scan.manifest.values())
        counts = {**kinds, "bytes": scan.manifest.content_bytes, "unread": len(scan.unread)}
        counts |= {f"excluded by {source}": number for source, number in scan.left_out.items()}
        rows += ((f"workspace.{name}", str(number)) for name, number in counts.items())
    if checkup.status is not None:
        rows += _facts("status", checkup.status)
    width = max(len(name) for name, _ in rows)
    return _HEAD.format(at=stamp(CLOCK.wall_s())) + "".join(f"\n{name:{width}}  {text}" for name, text in rows)


def _machine() -> Iterator[Row]:
    """Versions and limits."""
    yield "syncd", __version__
    yield "python", f"{platform.python_implementation()} {platform.python_version()}, {sys.getfilesystemencoding()}"
    with suppress(PackageNotFoundError):
        for name in (re.split(r"[^\w-]", each)[0] for each in requires("syncd") or () if "extra ==" not in each):
            yield name, version(name)
    kernel = re.match(r"[0-9.]+", platform.release())
    wsl = ", in WSL" if "microsoft" in platform.release().lower() else ""
    yield "kernel", f"{platform.system()} {kernel[0] if kernel else '?'}{wsl}"
    yield "machine", f"{platform.machine()}, {os.cpu_count()} processors, {watch_limit()[0]} watches"


def _facts(name: str, value: object) -> Iterator[Row]:
    """The value, or each field of a record, as far as it tells no name."""
    if isinstance(value, Struct):
        for field in value.__struct_fields__:
            yield from _facts(f"{name}.{field}", getattr(value, field))
    elif isinstance(value, Enum):
        yield name, str(value.value)
    elif isinstance(value, bool | int | float):
        yield name, str(value).lower()
    elif isinstance(value, str) and (value in _PUBLIC or _TIME.fullmatch(value)):
        yield name, value
    elif isinstance(value, tuple | dict):
        yield name, f"{len(value)} entries"
    else:
        yield name, "set" if value else "not set"
