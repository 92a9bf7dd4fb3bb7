"""The text file of `syncd check --report`: the facts and counts that a bug report needs, and no name of anything.

It is plain text, so that a person can read all of it before it is passed on. Its fields are fixed; a message, which may
name a path or an address, is in none of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from msgspec.structs import asdict

from syncd.cli.check.checks import Checks
from syncd.cli.check.facts import Row, config_facts, environment_facts, machine_facts
from syncd.cli.check.finding import Finding
from syncd.cli.check.service_check import service_of
from syncd.cli.check.size_breakdown import size_breakdown
from syncd.cli.options import CLOCK
from syncd.core.clock import stamp
from syncd.core.directories import directories_for
from syncd.core.errors import NeedsPerson, SyncdError
from syncd.core.settings import Config
from syncd.remote.failure import ApiStep
from syncd.report.history import START, SyncEnding
from syncd.report.history_recorder import HistoryStore
from syncd.sync.sync_reason import SyncReason

_HISTORY_LINES = 50
# A history line may hold any other word, if someone else wrote it.
_WORDS = frozenset({START, *SyncEnding, *ApiStep, *(reason.value for reason in SyncReason)})
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "NRestarts", "ExecMainStatus")
_HEAD = """syncd report, {at}

It holds numbers, times and words of syncd's own: no name, path, address, id, key or message.
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
        ("versions", machine_facts(systemd, config.workspace.path if config else None)),
        ("environment", environment_facts()),
        ("findings", [(finding.subject, finding.grade.word) for finding in findings]),
        ("configuration", config_facts(config) if config else []),
        ("workspace", _workspace(checkup)),
        ("status", _status(checkup)),
        (f"the last {_HISTORY_LINES} of the history", _history(config)),
        ("unit", [(name, service.properties().get(name, "")) for name in _PROPERTIES] if service else []),
    ]
    lines = [_HEAD.format(at=stamp(CLOCK.wall_s()))]
    for title, rows in sections:
        lines += [f"== {title} ==", *(_table(rows) or ["none"]), ""]
    return "\n".join(lines)


def _table(rows: Iterable[Row]) -> list[str]:
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:{width}}  {text}" for name, text in rows]


def _workspace(checkup: Checks) -> Iterator[Row]:
    scan = checkup.checked.scan if checkup.checked else None
    if scan is None:
        return
    counts = asdict(size_breakdown(scan.manifest))
    files_by_size: dict[str, int] = counts.pop("files_by_size")
    counts |= {f"files {size}": number for size, number in files_by_size.items()}
    counts |= {f"left out, {source}": number for source, number in scan.left_out.items()}
    counts |= {"unread": len(scan.unread), "warnings": len(scan.warnings)}
    for name, number in counts.items():
        yield name.replace("_", " "), f"{number:,}"


def _status(checkup: Checks) -> Iterator[Row]:
    status = checkup.status
    if status is None:
        return
    yield "state", f"{status.state}, since {status.state_since}"
    yield "running", str(status.running).lower()
    yield "pending", str(status.pending).lower()
    yield "syncs, failures", f"{status.syncs:,}, {status.failures:,}"
    if status.last_sync is not None:
        last = status.last_sync
        yield "last sync", f"{last.finished_at}, {last.files:,} files, {last.archive_bytes:,} bytes, {last.seconds} s"
    if status.last_error is not None:
        yield "last error", f"{status.last_error.at}, step {_word(status.last_error.step)}"
    yield "warnings", f"{len(status.warnings):,}"
    yield "held, changed there", f"{len(status.agent.held):,}, {status.agent.changed:,}"
    yield "leftovers", f"{status.lingering:,}"


def _history(config: Config | None) -> Iterator[Row]:
    if config is None:
        return
    try:
        records, damaged = HistoryStore(directories_for(config.workspace.path, os.environ).state).read()
    except OSError as failure:
        yield "cannot be read", str(failure.strerror)
        return
    for record in records[-_HISTORY_LINES:]:
        words = [_word(record.why), _word(record.outcome)]
        words += [f"failed at {_word(record.error.step)}"] if record.error else []
        words += [f"{record.attempts} attempts, {record.sent_bytes:,} bytes, {record.seconds} s"]
        yield stamp(record.at.timestamp()), ", ".join(words)
    if damaged:
        yield "lines that cannot be read", f"{damaged:,}"


def _word(text: str) -> str:
    return text if text in _WORDS else "…"
