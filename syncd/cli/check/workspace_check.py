"""Checks the workspace: scans it, and tries to watch it, as the daemon does."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack

from syncd.cli.check.finding import Finding, Grade, failed
from syncd.cli.local_scan import LocalScan, scan_workspace
from syncd.cli.options import CLOCK
from syncd.core.errors import SyncdError, SyncWarning
from syncd.core.settings import Config
from syncd.core.text import counted, few, shown_path, size
from syncd.daemon.build import size_remedy_of
from syncd.model.entry import Entry, Kind, count_files
from syncd.scan.exclusions import over_limit
from syncd.scan.scanner import Scan
from syncd.watch.inotify_limits import instance_limit, watch_limit
from syncd.watch.inotify_watch import InotifyWatch
from syncd.watch.mounts import shared_warning, workspace_mounts_of

_SHOWN_WARNINGS = 5
_HEAVIEST = 10
# A folder is named as a whole unless one entry holds this share of it: then the entry is named.
_DOMINANT_SHARE = 0.5
# Entries with a smaller share of all bytes are not named.
_LEAST_SHARE = 0.01
# A snapshot this large will soon be over its limit.
_SIZE_SHARE = 0.8
# Other programs of the same user, editors above all, need watches too.
_WATCHES_SHARE = 0.75
_MIB = 1 << 20


def check_workspace(config: Config, *, watches: bool) -> Generator[Finding, None, Scan | None]:
    """Scan the workspace, and try to watch it if `watches`; the scan, None if the workspace cannot be read.

    Where a daemon watches already, more watches would count against the same limit.
    """
    path = config.workspace.path
    with ExitStack() as stack:
        watch = InotifyWatch(path, CLOCK)
        stack.callback(watch.close)
        try:
            if watches:
                watch.open()
            found = scan_workspace(config, watch if watches else None)
            unwatched = watch.warnings()
        except SyncdError as failure:
            yield failed("directory", failure)
            return None
    scan = found.scan
    yield _size_finding(config, scan)
    if weights := heaviest(scan.manifest, _HEAVIEST):
        yield _heaviest_finding(weights, scan.manifest.content_bytes)
    yield from _warnings("directory", scan.warnings)
    shared = workspace_mounts_of(path).shared.items()
    included = [shared_warning(place, kind) for place, kind in shared if not place or place in scan.manifest]
    yield from _warnings("directory", included)
    if config.workspace.upload_secrets:
        yield Finding("secrets", Grade.WARN, "sent like other files, as workspace.upload_secrets is true")
    else:
        yield _secrets_finding(found)
    if unwatched:
        yield from _warnings("inotify", unwatched)
    else:
        yield _watches_finding(_directories(scan))
    return scan


def _size_finding(config: Config, scan: Scan) -> Finding:
    files, directories = count_files(scan.manifest.values()), _directories(scan)
    total_bytes, max_mib = scan.manifest.content_bytes, config.sync.max_snapshot_mib
    if refusal := over_limit(scan.manifest, max_mib):
        return Finding("directory", Grade.FAIL, refusal, size_remedy_of(config))
    folders = "1 directory" if directories == 1 else f"{directories:,} directories"
    what = f"{counted(files, 'file')} in {folders}, {size(total_bytes)}"
    if not files:
        remedy = "run `syncd ls --ignored`, or correct workspace.path"
        return Finding("directory", Grade.WARN, f"{what}: nothing to send", remedy)
    if total_bytes > _SIZE_SHARE * max_mib * _MIB:
        what += f": near the limit of {max_mib:,} MiB"
        return Finding("directory", Grade.WARN, what, size_remedy_of(config))
    return Finding("directory", Grade.PASS, f"{what}, of {max_mib:,} MiB allowed")


def _directories(scan: Scan) -> int:
    """The directories to watch, the workspace itself among them."""
    return 1 + sum(entry.kind is Kind.DIRECTORY for entry in scan.manifest.values())


def _heaviest_finding(weights: Sequence[tuple[str, int]], total_bytes: int) -> Finding:
    """The largest files and folders, each as the line of an ignore file that leaves it out."""
    details = tuple(
        f"{size_bytes / total_bytes:4.0%} {size(size_bytes):>11}  {ignore_line(path)}" for path, size_bytes in weights
    )
    share = sum(size_bytes for _, size_bytes in weights) / total_bytes
    what = f"{len(weights)} files or folders hold {share:.0%} of it"
    if len(weights) == 1:
        what = f"one {'folder' if weights[0][0].endswith('/') else 'file'} holds {share:.0%} of it"
    return Finding("largest", Grade.NOTE, what, "to leave one out, put its line into .syncdignore", details)


def heaviest(manifest: Mapping[str, Entry], count: int) -> list[tuple[str, int]]:
    """The largest files and folders with their bytes, none within another, the largest first; at most `count`.

    A folder, which ends with a slash, is replaced by its entries, at any depth, if one of them dominates it.
    """
    inside: dict[str, dict[str, int]] = {"": {}}
    for path, entry in manifest.items():
        below = path if entry.size_bytes else ""
        while below:
            above = below.rstrip("/").rpartition("/")
            folder = "".join(above[:2])
            siblings = inside.setdefault(folder, {})
            siblings[below] = siblings.get(below, 0) + entry.size_bytes
            below = folder
    total_bytes = sum(inside[""].values())
    heap = [(-size_bytes, path) for path, size_bytes in inside[""].items()]
    heapq.heapify(heap)
    found: list[tuple[str, int]] = []
    while heap and len(found) < count:
        negative, path = heapq.heappop(heap)
        children = inside.get(path, {})
        if -negative < _LEAST_SHARE * total_bytes:
            break
        if children and max(children.values()) >= _DOMINANT_SHARE * -negative:
            for child, size_bytes in children.items():
                heapq.heappush(heap, (-size_bytes, child))
        else:
            found.append((path, -negative))
    return found


def ignore_line(path: str) -> str:
    """The line of an ignore file at the top of the workspace that leaves out this path, and hardly any other.

    Characters that a line of text cannot hold become one `?` for each byte.
    """
    line = "".join(
        f"\\{c}" if c in "*?[\\" else c if c.isprintable() else "?" * len(c.encode("utf-8", "surrogateescape"))
        for c in path
    )
    return f"/{line[:-1]}\\ " if line.endswith(" ") else f"/{line}"


def _secrets_finding(found: LocalScan) -> Finding:
    """The paths left out as secrets, each with its rule or line. Those found by content are a warning."""
    by_name = [f"{shown_path(path)}: named like {pattern}" for path, pattern in found.named_like_secrets]
    by_content = [f"{shown_path(path)} holds {secret}" for path, secret in found.secrets.items()]
    number = len(by_name) + len(by_content)
    if not number:
        return Finding("secrets", Grade.PASS, "none found")
    kinds = [f"{len(paths):,} {how}" for paths, how in ((by_content, "by content"), (by_name, "by name")) if paths]
    what = f"{counted(number, 'path')} held back: {', '.join(kinds)}"
    remedy = "remove the secret, or allow the path in workspace.allow_secrets" if by_content else ""
    details = tuple(few((*by_content, *by_name), number, ": syncd ls --ignored"))
    return Finding("secrets", Grade.WARN if by_content else Grade.NOTE, what, remedy, details)


def _watches_finding(directories: int) -> Finding:
    """Compare one watch for each directory and one instance with this user's limits."""
    (watches, remedy), instances = watch_limit(), instance_limit()
    what = f"{_of(directories, watches)} watches and {_of(1, instances)} instances needed"
    if watches is not None and directories > watches:
        return Finding("inotify", Grade.WARN, f"{what}: too many, the rest is polled", remedy)
    if watches is not None and directories > _WATCHES_SHARE * watches:
        return Finding("inotify", Grade.WARN, f"{what}; this user's other programs need some too", remedy)
    return Finding("inotify", Grade.PASS, what)


def _of(needed: int, allowed: int | None) -> str:
    return f"{needed:,}" if allowed is None else f"{needed:,} of {allowed:,}"


def _warnings(subject: str, warnings: Sequence[SyncWarning]) -> Iterator[Finding]:
    for warning in warnings[:_SHOWN_WARNINGS]:
        yield Finding(subject, Grade.WARN, warning.what, warning.remedy)
    more = len(warnings) - _SHOWN_WARNINGS
    if more > 0:
        yield Finding(subject, Grade.WARN, f"{more:,} more such", "`syncd status` lists all once it runs")
