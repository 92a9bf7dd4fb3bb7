"""The text file of `syncd check --report`: what a bug report needs, with no name, address, id or key in it.

It is plain text, so that a person can read all of it before it is passed on. Its fields are fixed: numbers, times and
words of a fixed set as they are, and of every message its fixed parts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

from msgspec import Struct

from syncd.cli.check.checks import Checks
from syncd.cli.check.facts import Row, config_facts, environment_facts, machine_facts
from syncd.cli.check.finding import Finding
from syncd.cli.check.fixed_text import fixed_text
from syncd.cli.check.service_check import service_of
from syncd.cli.check.size_breakdown import size_breakdown
from syncd.cli.options import CLOCK
from syncd.cli.service.command import InstalledService
from syncd.cli.service.unit import shipped
from syncd.core.clock import stamp
from syncd.core.directories import directories_for
from syncd.core.errors import NeedsPerson, SyncdError
from syncd.core.settings import Config
from syncd.core.text import redacted
from syncd.remote.failure import ApiStep
from syncd.report.history import START, SyncEnding
from syncd.report.history_store import HistoryStore
from syncd.sync.status_document import State
from syncd.sync.sync_reason import SyncReason

_LOG_LINES = 200
_HISTORY_LINES = 50
_WORDS = frozenset({"", START, "us", "asia", *State, *SyncEnding, *ApiStep, *(reason.value for reason in SyncReason)})
_MESSAGES = ("message", "warnings")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,15}Z")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+){1,3}(\.?[a-z]{1,4}[0-9]+)?")
_LOG_LINE = re.compile(
    r"([A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9T:.+Z-]{19,35}) (syncd|systemd|python[0-9.]*)\[[0-9]+\]: (.*)"
)
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "NRestarts", "ExecMainStatus")
_HEAD = """syncd report, {at}

It holds fixed texts, numbers and times; … stands for everything else: names, paths, addresses, ids and keys.
Nothing of this was sent anywhere. Read it to the end before you pass it on.
"""


def write_report(named: str, checkup: Checks, findings: Sequence[Finding]) -> tuple[str, int]:
    """Write the report to a new file: `named`, or one in the current directory. Its path and its number of lines.

    Raises `NeedsPerson` if the file exists, cannot be written, or would be synced.
    """
    workspace = checkup.config.workspace.path if checkup.config else None
    path = os.path.abspath(named) if named else _new_path(workspace)
    if workspace is not None and (os.path.realpath(path) + os.sep).startswith(workspace + os.sep):
        raise NeedsPerson(f"{path} is in the workspace and would be synced", "name a file elsewhere with --report FILE")
    text = _text(checkup, findings)
    created = False
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        created = True
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except FileExistsError:
        raise NeedsPerson(f"{path} already exists", "name another file with --report FILE") from None
    except OSError as failure:
        if created:
            with suppress(OSError):
                os.unlink(path)  # it is incomplete
        raise NeedsPerson(
            f"{path} cannot be written ({failure.strerror})", "name another file with --report FILE"
        ) from None
    return path, text.count("\n")


def _new_path(workspace: str | None) -> str:
    """An unused path in the current directory, or in the home directory if the current one is or may be synced."""
    folder = os.getcwd()
    if workspace is None or (os.path.realpath(folder) + os.sep).startswith(workspace + os.sep):
        folder = os.path.expanduser("~")
    stem = os.path.join(folder, f"syncd-report-{stamp(CLOCK.wall_s())[:10]}")
    path, number = f"{stem}.txt", 2
    while os.path.lexists(path):
        path, number = f"{stem}-{number}.txt", number + 1
    return path


def _text(checkup: Checks, findings: Sequence[Finding]) -> str:
    service = None
    with suppress(SyncdError):
        service = service_of(checkup.config_file)
    config = checkup.config
    systemd = service.manager.version() if service else 0
    sections = [
        ("versions", _table([*machine_facts(systemd, config.workspace.path if config else None), _daemon(checkup)])),
        ("environment", _table(environment_facts())),
        ("findings", _findings(findings)),
        ("configuration", _table(config_facts(config)) if config else ["cannot be used, see the findings"]),
        ("workspace", _workspace(checkup)),
        ("status", _status(checkup)),
        (f"the last {_HISTORY_LINES} of the history", _history(config)),
        ("unit", _unit(service)),
        (f"the last {_LOG_LINES} lines of the log", _log(service)),
    ]
    lines = [_HEAD.format(at=stamp(CLOCK.wall_s()))]
    for title, rows in sections:
        lines += [f"== {title} ==", *(list(rows) or ["none"]), ""]
    return redacted("\n".join(lines), checkup.secret)


def _fixed(value: Any, name: str = "") -> Any:
    """A document's fields: numbers, times and known words as they are; of messages the fixed parts."""
    if isinstance(value, Struct):
        return {field: _fixed(getattr(value, field), field) for field in value.__struct_fields__}
    if isinstance(value, datetime):
        return stamp(value.timestamp())
    if isinstance(value, tuple):
        return [_fixed(item, name) for item in value]
    if isinstance(value, dict):
        return f"{len(value)} entries"
    if not isinstance(value, str) or value in _WORDS or _TIME.fullmatch(value):
        return value
    return fixed_text(value) if name in _MESSAGES else "…"


def _table(rows: Iterable[Row]) -> list[str]:
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:{width}}  {text}" for name, text in rows]


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        more = f" ({len(finding.details)} named on the screen)" if finding.details else ""
        yield f"{finding.grade.word}  {finding.subject:13}  {fixed_text(finding.what)}{more}"
        if finding.remedy:
            yield f"{'':6}{'to do:':>13}  {fixed_text(finding.remedy)}"


def _workspace(checkup: Checks) -> list[str]:
    scan = checkup.checked.scan if checkup.checked else None
    if scan is None:
        return ["could not be read"]
    counts = asdict(size_breakdown(scan.manifest))
    files_by_size: dict[str, int] = counts.pop("files_by_size")
    rows = [(name.replace("_", " "), f"{number:,}") for name, number in counts.items()]
    rows += [(f"files {size}", f"{number:,}") for size, number in files_by_size.items()]
    rows += [(f"left out, {source}", f"{number:,}") for source, number in scan.left_out.items()]
    return _table([*rows, ("unread", f"{len(scan.unread):,}"), ("warnings", f"{len(scan.warnings):,}")])


def _daemon(checkup: Checks) -> Row:
    version = checkup.status.daemon_version if checkup.status else None
    return "daemon", version if version and _VERSION.fullmatch(version) else "not known"


def _status(checkup: Checks) -> list[str]:
    if checkup.status is None:
        return []
    return json.dumps(_fixed(checkup.status), indent=1, ensure_ascii=False).splitlines()


def _history(config: Config | None) -> Iterator[str]:
    if config is None:
        return
    try:
        records, damaged = HistoryStore(directories_for(config.workspace.path, os.environ).state).read()
    except OSError as failure:
        yield f"cannot be read: {failure.strerror}"
        return
    for record in records[-_HISTORY_LINES:]:
        yield json.dumps(_fixed(record), ensure_ascii=False)
    if damaged:
        yield f"lines that cannot be read: {damaged}"


def _unit(service: InstalledService | None) -> list[str]:
    """Differences between the installed unit and the shipped one, by directive, without values."""
    if service is None:
        return []
    own = set(shipped(service.unit.file).splitlines())
    try:
        with open(service.unit_file, encoding="utf-8", errors="replace") as file:
            lines = set(file.read().splitlines())
    except FileNotFoundError:
        return ["not installed"]
    except OSError as failure:
        return [f"cannot be read: {failure.strerror}"]
    changed, missing = _directives(lines - own), _directives(own - lines)
    known = [name for name in changed if name in _directives(own)]
    properties = service.properties()
    return _table(
        [
            ("lines as shipped", str(len(lines & own))),
            ("other lines", f"{len(lines - own)}: {', '.join(known) or '…'}"),
            ("missing lines", f"{len(own - lines)}: {', '.join(missing) or 'comments'}"),
            ("drop-ins", str(len(properties.get("DropInPaths", "").split()))),
            *((name, properties.get(name, "")) for name in _PROPERTIES),
        ]
    )


def _directives(lines: set[str]) -> list[str]:
    return sorted({line.partition("=")[0] for line in lines if re.match(r"[A-Z][A-Za-z]+=", line)})


def _log(service: InstalledService | None) -> Iterator[str]:
    if service is None:
        return
    try:
        lines = service.manager.journal(service.unit.name, _LOG_LINES)
    except SyncdError as failure:
        lines = [str(failure)]
    for line in lines:
        parsed = _LOG_LINE.fullmatch(line)
        yield f"{parsed[1]} {parsed[2]}: {fixed_text(parsed[3])}" if parsed else fixed_text(line)
