"""Checks the workspace: scans it, and tries to watch it, as the daemon does; and the folders for state and spool."""

from __future__ import annotations

import os
import stat

from msgspec import Struct, field

from syncd.archive.secret_files import exclude_secret_files
from syncd.cli.check.finding import Finding, Grade
from syncd.cli.check.largest_paths import heaviest
from syncd.cli.check.thresholds import (
    judge_heaviest,
    judge_private,
    judge_secrets,
    judge_size,
    judge_space,
    judge_state_space,
    judge_watches,
)
from syncd.core.errors import WorkspaceError
from syncd.core.text import shown_path
from syncd.core.warning import SyncWarning
from syncd.model.entry import Kind, content_bytes, count_files
from syncd.scan.file_reader import ContentReader
from syncd.scan.limits import over_limit
from syncd.scan.scanner import LeftOut, Scan, Scanner
from syncd.selection.selection import Decision, Selection
from syncd.watch import inotify_limits, mounts
from syncd.watch.inotify_watch import InotifyWatch
from syncd.watch.scan_listener import NoScanListener
from syncd.watch.shared_mounts import shared_warning

_SHOWN_WARNINGS = 5
_HEAVIEST = 10


class WorkspaceCheck(Struct):
    """The findings, and the size of a snapshot; `scan` is None if the workspace cannot be read."""

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
    too_large: str = "",
) -> WorkspaceCheck:
    """Scan the workspace, and try to watch it if no daemon does so.

    `reader` searches for secrets; `too_large` is the remedy for a snapshot that is.
    """
    found = WorkspaceCheck()
    watch_warnings: tuple[SyncWarning, ...] = ()
    by_name: list[str] = []

    def add(path: str, is_dir: bool, decision: Decision) -> None:
        if decision.rule is not None and decision.rule.source == "secrets":
            name = f"{shown_path(path)}/" if is_dir else shown_path(path)
            by_name.append(f"{name}: named like {decision.rule.pattern}")

    try:
        if running_pid is None:
            scan, watch_warnings = _watched_scan(workspace, selection, personal_excludes, add)
        else:  # more watches would count against the same limit; the status has what the daemon lacks
            scan = Scanner(workspace, selection, NoScanListener(), add, personal_excludes=personal_excludes).scan()
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
        found.findings.append(Finding("directory", Grade.FAIL, refusal, too_large))
    else:
        found.findings.append(judge_size(count_files(entries), directories, found.content_bytes, max_mib, too_large))
    if found.content_bytes:
        found.findings.append(judge_heaviest(heaviest(scan.manifest, _HEAVIEST)))
    found.findings += _warnings("directory", scan.warnings)
    found.findings += _shared_mounts(workspace, scan)
    if reader:
        by_content = [f"{shown_path(path)} holds {secret}" for path, secret in secrets.items()]
        found.findings.append(judge_secrets(by_name, by_content))
    if watch_warnings:
        found.findings += _warnings("inotify", watch_warnings)
    else:
        limits = (*inotify_limits.watch_limit(), inotify_limits.instance_limit())
        found.findings.append(judge_watches(directories, *limits))
    return found


def _shared_mounts(workspace: str, scan: Scan) -> list[Finding]:
    shared = mounts.workspace_mounts_of(workspace).shared
    included = {path: kind for path, kind in shared.items() if not path or path in scan.manifest}
    return _warnings("directory", [shared_warning(path, kind) for path, kind in included.items()])


def _watched_scan(
    workspace: str, selection: Selection, personal_excludes: str, on_left_out: LeftOut
) -> tuple[Scan, tuple[SyncWarning, ...]]:
    watch = InotifyWatch(workspace, lambda: None)
    watch.open()
    try:
        scan = Scanner(workspace, selection, watch, on_left_out, personal_excludes=personal_excludes).scan()
        return scan, tuple(watch.warnings())
    finally:
        watch.close()


def folder_findings(state: str, spool: str, content: int) -> list[Finding]:
    """Test if the daemon's folders exist, or can be created, and can be written. Creates none."""
    findings = []
    for subject, folder in (("state", state), ("spool", spool)):
        existing = _nearest(folder)
        remedy = f"make it writable, or set XDG_{'STATE' if subject == 'state' else 'CACHE'}_HOME to another folder"
        if not os.path.isdir(existing):
            findings.append(
                Finding(subject, Grade.FAIL, f"{folder} cannot be created: {existing} is no folder", remedy)
            )
        elif not os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
            findings.append(
                Finding(subject, Grade.FAIL, f"{folder} cannot be written: {existing} is not writable", remedy)
            )
        elif existing == folder and (open_to_others := _open_to_others(subject, folder)):
            findings.append(open_to_others)
        elif subject == "state":
            what = f"{folder} {'exists' if existing == folder else 'can be created'}"
            findings.append(judge_state_space(what, _free_bytes(existing)))
        else:
            findings.append(judge_space(folder, _free_bytes(existing), content))
    return findings


def _free_bytes(folder: str) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _open_to_others(subject: str, folder: str) -> Finding | None:
    mode = stat.S_IMODE(os.stat(folder).st_mode)
    return judge_private(subject, folder, mode, forbidden=0o077, harm="other users can read it")


def _nearest(folder: str) -> str:
    """The folder itself, or the nearest existing one above it."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    return folder


def _warnings(subject: str, warnings: list[SyncWarning] | tuple[SyncWarning, ...]) -> list[Finding]:
    findings = [Finding(subject, Grade.WARN, warning.what, warning.remedy) for warning in warnings[:_SHOWN_WARNINGS]]
    more = len(warnings) - len(findings)
    if more > 0:
        findings.append(Finding(subject, Grade.WARN, f"{more:,} more such", "`syncd status` lists all once it runs"))
    return findings
