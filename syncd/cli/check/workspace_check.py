"""What `syncd check` sees of the workspace: it scans it, and tries to watch it, as the daemon would."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from syncd.archive.secret_files import exclude_secret_files
from syncd.cli.check.finding import Finding, Grade
from syncd.cli.check.size_breakdown import heaviest
from syncd.cli.check.thresholds import (
    judge_heaviest,
    judge_private,
    judge_secrets,
    judge_size,
    judge_space,
    judge_watches,
)
from syncd.core.errors import WorkspaceError
from syncd.core.text import shown_path
from syncd.core.warning import SyncWarning
from syncd.scan.file_reader import ContentReader
from syncd.scan.manifest import Kind, content_bytes, count_files
from syncd.scan.scanner import LeftOut, Scan, Scanner
from syncd.scan.size_limit import over_limit
from syncd.selection.selection import Decision, Selection
from syncd.watch import inotify_limits, inotify_usage, mounts
from syncd.watch.interface import watcher
from syncd.watch.scan_listener import NoScanListener

_SHOWN_WARNINGS = 5
_HEAVIEST = 10


@dataclass
class WorkspaceCheck:
    """What was found, and how much a snapshot would hold; `scan` is None where the workspace cannot be read."""

    findings: list[Finding] = field(default_factory=list)
    content_bytes: int = 0
    scan: Scan | None = None


def check_workspace(
    workspace: str,
    selection: Selection,
    max_mib: int,
    running_pid: int | None,
    *,
    reader: ContentReader | None = None,
    personal_excludes: str = "",
) -> WorkspaceCheck:
    """Look at the workspace; where no daemon watches it already, also try to watch it. `reader` looks for secrets."""
    found = WorkspaceCheck()
    watch_warnings: tuple[SyncWarning, ...] = ()
    by_name: list[str] = []

    def note(path: str, is_dir: bool, decision: Decision) -> None:
        if decision.rule is not None and decision.rule.source == "secrets":
            name = f"{shown_path(path)}/" if is_dir else shown_path(path)
            by_name.append(f"{name}: named like {decision.rule.pattern}")

    try:
        if running_pid is None:
            scan, watch_warnings = _watched_scan(workspace, selection, personal_excludes, note)
        else:  # a second set of watches would count against the same limit, and what it lacks is in its status
            scan = Scanner(workspace, selection, NoScanListener(), note, personal_excludes=personal_excludes).scan()
        secrets = exclude_secret_files(scan, reader) if reader else {}
    except WorkspaceError as failure:
        found.findings.append(Finding("directory", Grade.FAIL, failure.message, failure.hint))
        return found
    found.scan = scan
    entries = scan.manifest.values()
    directories = 1 + sum(entry.kind is Kind.DIRECTORY for entry in entries)
    found.content_bytes = content_bytes(entries)
    refusal = over_limit(scan.manifest, max_mib)
    if refusal:
        remedy = "ignore what is large in .syncdignore, or raise sync.max_snapshot_mib"
        found.findings.append(Finding("directory", Grade.FAIL, refusal, remedy))
    else:
        found.findings.append(judge_size(count_files(entries), directories, found.content_bytes, max_mib))
    if found.content_bytes:
        found.findings.append(judge_heaviest(heaviest(scan.manifest, _HEAVIEST)))
    found.findings += _warnings("directory", scan.warnings)
    found.findings += _file_system(workspace)
    if reader:
        by_content = [f"{shown_path(path)} holds {secret}" for path, secret in secrets.items()]
        found.findings.append(judge_secrets(by_name, by_content))
    if watch_warnings:
        found.findings += _warnings("inotify", watch_warnings)
    else:
        found.findings.append(_watches(directories, running_pid))
    return found


def _watches(directories: int, running_pid: int | None) -> Finding:
    others = inotify_usage.used_by_others({os.getpid(), running_pid or 0}) or inotify_usage.Usage(0, 0)
    return judge_watches(
        directories,
        *inotify_limits.watch_limit(),
        inotify_limits.instance_limit(),
        taken=(others.watches, others.instances),
        programs=others.programs,
    )


def _file_system(workspace: str) -> list[Finding]:
    kind = mounts.filesystem_type(workspace)
    if kind not in mounts.SHARED_FILESYSTEMS:
        return []
    what = f"it is on {kind}: what others change there is found only every sync.rescan_minutes"
    return [Finding("directory", Grade.WARN, what, "work on a local disk, or make sync.rescan_minutes smaller")]


def _watched_scan(
    workspace: str, selection: Selection, personal_excludes: str, note: LeftOut
) -> tuple[Scan, tuple[SyncWarning, ...]]:
    watch = watcher(workspace, lambda: None)
    watch.open()
    try:
        scan = Scanner(workspace, selection, watch, note, personal_excludes=personal_excludes).scan()
        return scan, tuple(watch.warnings())
    finally:
        watch.close()


def folder_findings(state: str, spool: str, content: int) -> list[Finding]:
    """Whether the daemon's folders can be made and written; nothing is made here."""
    findings = []
    for subject, folder in (("state", state), ("spool", spool)):
        there = _nearest(folder)
        remedy = f"make it writable, or set XDG_{'STATE' if subject == 'state' else 'CACHE'}_HOME to another folder"
        if not os.path.isdir(there):
            findings.append(Finding(subject, Grade.FAIL, f"{folder} cannot be made: {there} is no folder", remedy))
        elif not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
            findings.append(
                Finding(subject, Grade.FAIL, f"{folder} cannot be written: {there} is not writable", remedy)
            )
        elif there == folder and (open_to_others := _open_to_others(subject, folder)):
            findings.append(open_to_others)
        elif subject == "state":
            findings.append(
                Finding(subject, Grade.PASS, f"{folder} {'is there' if there == folder else 'can be made'}")
            )
        else:
            disk = os.statvfs(there)
            findings.append(judge_space(folder, disk.f_bavail * disk.f_frsize, content))
    return findings


def _open_to_others(subject: str, folder: str) -> Finding | None:
    mode = stat.S_IMODE(os.stat(folder).st_mode)
    return judge_private(subject, folder, mode, forbidden=0o077, harm="others can look into it")


def _nearest(folder: str) -> str:
    """The folder itself, or the nearest above it that is there."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    return folder


def _warnings(subject: str, warnings: list[SyncWarning] | tuple[SyncWarning, ...]) -> list[Finding]:
    findings = [Finding(subject, Grade.WARN, warning.what, warning.remedy) for warning in warnings[:_SHOWN_WARNINGS]]
    more = len(warnings) - len(findings)
    if more > 0:
        findings.append(Finding(subject, Grade.WARN, f"{more:,} more such", "`syncd status` lists all once it runs"))
    return findings
