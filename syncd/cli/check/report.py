"""The text file of `syncd check --report`: what a bug report needs, with no name, address, id or key in it.

A plain text, as a person must be able to read all of it before it is passed on. What comes from outside goes through
one disguise (`policy.anonymizer`), so that the same path has the same pseudonym in the findings and in the log.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from urllib.parse import urlsplit

import msgspec

from syncd.cli.check.anonymizer import Anonymizer, words_and_phrases
from syncd.cli.check.checks import Checks
from syncd.cli.check.facts import Row, config_facts, environment_facts, machine_facts
from syncd.cli.check.finding import Finding
from syncd.cli.check.public_words import public_texts
from syncd.cli.check.service_check import service_of
from syncd.cli.check.size_breakdown import size_breakdown
from syncd.cli.options import CLOCK
from syncd.cli.service.command import InstalledService
from syncd.cli.service.unit import shipped
from syncd.core.clock import stamp
from syncd.core.directories import directories_for
from syncd.core.errors import NeedsPerson, SyncdError
from syncd.core.formatting import counted
from syncd.core.settings import Config
from syncd.core.text import redacted

_LOG_LINES = 200
_HISTORY = "history.jsonl"
_HISTORY_LINES = 50
_HISTORY_BYTES = 1 << 18
# Names of several words, all of them syncd's own: only whole can they be told from its text.
_MOST_NAMES = 2000
_HEAD = """syncd report, {at}

Names, paths, addresses, ids and keys are replaced: <path-3> is the same path all through this file.
Nothing of this was sent anywhere. Read it to the end before you pass it on.
"""


def write_report(named: str, checkup: Checks, findings: Sequence[Finding]) -> tuple[str, int]:
    """Write it to a new file, the `named` one or one in the current directory; the file and its number of lines.

    Raises `NeedsPerson` where that is there already, cannot be written, or would be synced.
    """
    workspace = checkup.config.workspace.path if checkup.config else None
    path = os.path.abspath(named) if named else _default(workspace)
    if workspace is not None and (os.path.realpath(path) + os.sep).startswith(workspace + os.sep):
        raise NeedsPerson(f"{path} is in the workspace and would be synced", "name a file elsewhere: --report FILE")
    text = _text(checkup, findings)
    made = False
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        made = True
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except FileExistsError:
        raise NeedsPerson(f"{path} is there already", "name another file: --report FILE") from None
    except OSError as failure:
        if made:
            with suppress(OSError):
                os.unlink(path)  # half a report is none
        raise NeedsPerson(f"{path} cannot be written: {failure.strerror}", "name another: --report FILE") from None
    return path, text.count("\n")


def _default(workspace: str | None) -> str:
    """A name that is free, in the current directory; at home, where the current one is synced, or may be."""
    folder = os.getcwd()
    if workspace is None or (os.path.realpath(folder) + os.sep).startswith(workspace + os.sep):
        folder = os.path.expanduser("~")
    plain = os.path.join(folder, f"syncd-report-{stamp(CLOCK.wall_s())[:10]}")
    path, number = f"{plain}.txt", 2
    while os.path.lexists(path):
        path, number = f"{plain}-{number}.txt", number + 1
    return path


def _text(checkup: Checks, findings: Sequence[Finding]) -> str:
    service = None
    with suppress(SyncdError):
        service = service_of(checkup.config_file)
    anonymizer = _anonymized(checkup)
    config = checkup.config
    systemd = service.manager.version() if service else 0
    sections = [
        ("versions", _table(machine_facts(systemd, config.workspace.path if config else None))),
        ("environment", _table(environment_facts())),
        ("findings", _findings(findings, anonymizer, checkup.secret)),
        ("configuration", _table(config_facts(config, anonymizer)) if config else ["cannot be used, see the findings"]),
        ("workspace", _workspace(checkup)),
        ("status", _status(checkup, anonymizer)),
        (f"the last {_HISTORY_LINES} of the history", _history(config, anonymizer)),
        ("unit", _unit(service, anonymizer)),
        (f"the last {_LOG_LINES} lines of the log", _log(service, anonymizer, checkup.secret)),
    ]
    lines = [_HEAD.format(at=stamp(CLOCK.wall_s()))]
    for title, rows in sections:
        lines += [f"== {title} ==", *(list(rows) or ["none"]), ""]
    counts = ", ".join(counted(number, kind) for kind, number in sorted(anonymizer.counts.items()))
    lines += ["== replaced ==", f"different ones: {counts or 'none'}", ""]
    return redacted("\n".join(lines), checkup.secret)


def _anonymized(checkup: Checks) -> Anonymizer:
    """What is known to be private is named, so that even a plain word is hidden if it is someone's name."""
    words, phrases = words_and_phrases(public_texts())
    private: dict[str, str] = {}
    with suppress(OSError, KeyError, ImportError):
        private[getpass.getuser()] = "<user>"
    private[socket.gethostname()] = "<host>"
    private[socket.gethostname().partition(".")[0]] = "<host>"
    config = checkup.config
    if config is not None:
        private[os.path.basename(config.workspace.path)] = "<workspace-name>"
        private[urlsplit(config.sandbox.base_url).hostname or ""] = "<api>"
        private[config.sandbox.id or ""] = "<sandbox>"
    if checkup.status is not None:
        private[checkup.status.sandbox.id] = "<sandbox>"
    private[os.path.expanduser("~")] = "<home>"
    private[os.path.realpath(os.path.expanduser("~"))] = "<home>"
    if config is not None:
        private[config.workspace.path] = "<workspace>"
    for harmless in ("", "/", "127.0.0.1", "localhost", "api.klavis.ai", "api.eu.klavis.ai", "syncd", "root"):
        private.pop(harmless, None)
    return Anonymizer(words, phrases, private, names=_spaced(checkup, words))


def _spaced(checkup: Checks, words: frozenset[str]) -> list[str]:
    """Names in the workspace that consist of words which may be shown."""
    manifest = checkup.checked.scan.manifest if checkup.checked and checkup.checked.scan else {}
    names = {name for path in manifest for name in path.split("/") if " " in name}
    spoken = sorted(name for name in names if words.issuperset(re.findall(r"[a-z]+", name.lower())))
    return spoken[:_MOST_NAMES]


def _table(rows: Iterable[Row]) -> list[str]:
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    return [f"{name:{width}}  {text}" for name, text in listed]


def _findings(findings: Sequence[Finding], anonymizer: Anonymizer, secret: str) -> Iterator[str]:
    for finding in findings:
        what = anonymizer.text(redacted(finding.what, secret))
        more = f" ({len(finding.details)} named on the screen)" if finding.details else ""
        yield f"{finding.grade.word}  {finding.subject:13}  {what}{more}"
        if finding.remedy:
            yield f"{'':6}{'to do:':>13}  {anonymizer.text(redacted(finding.remedy, secret))}"


def _workspace(checkup: Checks) -> list[str]:
    scan = checkup.checked.scan if checkup.checked else None
    if scan is None:
        return ["could not be looked at"]
    counts = asdict(size_breakdown(scan.manifest))
    request_queue: dict[str, int] = counts.pop("orders")
    rows = [(name.replace("_", " "), f"{number:,}") for name, number in counts.items()]
    rows += [(f"files {order}", f"{number:,}") for order, number in request_queue.items()]
    rows += [(f"left out, {who}", f"{number:,}") for who, number in scan.left_out.items()]
    return _table([*rows, ("unread", f"{len(scan.unread):,}"), ("problems", f"{len(scan.warnings):,}")])


def _status(checkup: Checks, anonymizer: Anonymizer) -> list[str]:
    if checkup.status is None:
        return []
    return json.dumps(anonymizer.value(msgspec.to_builtins(checkup.status)), indent=1, ensure_ascii=False).splitlines()


def _history(config: Config | None, anonymizer: Anonymizer) -> Iterator[str]:
    if config is None:
        return
    path = os.path.join(directories_for(config.workspace.path, os.environ).state, _HISTORY)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _HISTORY_BYTES))
            lines = file.read(_HISTORY_BYTES).splitlines()[-_HISTORY_LINES:]
    except FileNotFoundError:
        return
    except OSError as failure:
        yield f"cannot be read: {failure.strerror}"
        return
    for line in lines:
        try:
            yield json.dumps(anonymizer.value(json.loads(line)), ensure_ascii=False)
        except (ValueError, RecursionError):
            yield "(a line that is no JSON)"


def _unit(service: InstalledService | None, anonymizer: Anonymizer) -> Iterator[str]:
    """Lines that every installation has, as they are; others disguised."""
    if service is None:
        return
    own = set(shipped(service.unit.file).splitlines())
    try:
        with open(service.unit_file, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        yield "not installed"
        return
    except OSError as failure:
        yield f"cannot be read: {failure.strerror}"
        return
    for line in lines:
        yield line if line in own else anonymizer.text(line)
    for path in service.properties().get("DropInPaths", "").split():
        yield f"drop-in: {anonymizer.text(os.path.basename(path))}"


# What a person's own hook printed is none of our words.
_FOREIGN = "on_sandbox_change: "


def _log(service: InstalledService | None, anonymizer: Anonymizer, secret: str) -> Iterator[str]:
    if service is None:
        return
    try:
        lines = service.manager.journal(service.unit.name, _LOG_LINES)
    except SyncdError as failure:
        yield anonymizer.text(str(failure))
        return
    for line in lines:
        if _FOREIGN not in line:
            yield _logged(redacted(line, secret), anonymizer)


def _logged(line: str, anonymizer: Anonymizer) -> str:
    """A line of the log; one that holds JSON keeps its form, as in it all text is quoted."""
    before, brace, rest = line.partition("{")
    if brace:
        with suppress(ValueError, RecursionError):
            return anonymizer.text(before) + json.dumps(anonymizer.value(json.loads(brace + rest)), ensure_ascii=False)
    return anonymizer.text(line)
