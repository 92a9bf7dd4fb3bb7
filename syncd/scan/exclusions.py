"""Paths that are not sent, and why: what no archive can hold, the limits, the warnings; and the rules for one path.

`explain` says of one path why it is in the snapshot or not, `PathRules` if one that does not exist yet would be. Their
checks are those of the scan.
"""

from __future__ import annotations

import errno
import heapq
import os
import stat
from collections.abc import Mapping
from itertools import accumulate

from msgspec import Struct

from syncd.core import safe_open
from syncd.core.errors import SnapshotTooLarge, SyncWarning, WorkspaceError
from syncd.core.text import shown_path, size
from syncd.model.entry import Entry, leads_out, stays_inside
from syncd.model.manifest import Manifest
from syncd.selection.ignore_files import read_ignore_files, read_rules_outside
from syncd.selection.selection import BUILT_IN, OWN_FILES, Decision, Rule, Scope, Selection

_MIB = 1 << 20
# The kernel accepts no path of 4,096 bytes or more (PATH_MAX in linux/limits.h), and extractors use whole paths: one
# file with a longer path made a sandbox refuse the whole archive. The rest is for the folder that it extracts into.
LONGEST_PATH_BYTES = 4096 - 256

# Kinds of paths that no archive can hold, whatever the rules are.
OUTSIDE = Decision(False, Rule(BUILT_IN, None, "links that lead outside the workspace"))
SPECIAL = Decision(False, Rule(BUILT_IN, None, "sockets, FIFOs and devices"))
TOO_LONG = Decision(False, Rule(BUILT_IN, None, f"paths of more than {LONGEST_PATH_BYTES:,} bytes"))
OWN_FILE = Decision(False, Rule(OWN_FILES, None, "a second name of a key or a configuration"))

_SHOWN = 60
# There is nothing of that path.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
# What is mounted does not answer any more, as the program behind a FUSE file system died, or its server is gone.
_UNREACHABLE = frozenset({errno.ENOTCONN, errno.ECONNABORTED, errno.ESTALE, errno.EHOSTDOWN, errno.EHOSTUNREACH})


def unreadable(path: str, failure: OSError) -> SyncWarning:
    """Return the warning about a file or directory that cannot be read."""
    repair = "mount it again" if failure.errno in _UNREACHABLE else "repair it"
    remedy = f"{'let your user read it' if failure.errno == errno.EACCES else repair}, or exclude it"
    return SyncWarning(f"unreadable:{path}", f"{path!r} cannot be read ({failure.strerror}) and is not sent", remedy)


def unmounted(path: str) -> SyncWarning:
    """Return the warning about a place at which something was mounted, and is not any more."""
    return SyncWarning(
        f"unmounted:{path}",
        f"what was mounted at {path!r} is missing; what was sent of it stays in the sandbox",
        "mount it again, or run `syncd push --force` if it is to be removed there",
    )


def leads_outside(path: str) -> SyncWarning:
    """Return the warning about a link that leads outside of the workspace."""
    return SyncWarning(
        f"link:{path}",
        f"the link {path!r} leads outside the workspace and is excluded",
        "let it point inside the workspace, or exclude it",
    )


def linked_rules(path: str) -> SyncWarning:
    """Return the warning about a file with rules that is a link: git does not read it either."""
    return SyncWarning(
        f"rules:{path}",
        f"the rules of {path!r} do not count, as it is a link, so what they name may be sent",
        "put a file with the rules in its place",
    )


def too_deep(folder: str) -> SyncWarning:
    """Return the warning about a directory that holds paths which are too long.

    The directory's own path is long too, so only its beginning and its end are shown.
    """
    return SyncWarning(
        f"long:{folder}",
        f"in {folder[:_SHOWN]!r} … {folder[-_SHOWN:]!r} are paths of more than {LONGEST_PATH_BYTES:,} bytes, "
        "which are excluded as few programs can open them",
        "give its folders shorter names, or exclude it",
    )


def largest(manifest: Mapping[str, Entry], count: int) -> list[tuple[str, int]]:
    """Return the paths of the largest files with their sizes in bytes, the largest first."""
    sizes = ((entry.size_bytes, path) for path, entry in manifest.items() if entry.size_bytes)
    return [(path, size) for size, path in heapq.nlargest(count, sizes)]


def check_size(manifest: Manifest, max_mib: int) -> None:
    """Raise `SnapshotTooLarge` if the snapshot is refused. The files' sizes count before compression."""
    total = manifest.content_bytes
    if total <= max_mib * _MIB:
        return
    big = ", ".join(f"{path!r} ({size(size_bytes)})" for path, size_bytes in largest(manifest, 3))
    raise SnapshotTooLarge(
        f"the snapshot holds {mib(total)}, more than sync.max_snapshot_mib = {max_mib}; the largest: {big}",
        "exclude what is large in .syncdignore, or raise sync.max_snapshot_mib with `syncd config edit`",
    )


def too_long(path: str) -> bool:
    """True if most programs could not create this path, relative to the workspace, in the sandbox."""
    if len(path) * 4 <= LONGEST_PATH_BYTES:
        return False
    return len(path.encode("utf-8", "surrogateescape")) > LONGEST_PATH_BYTES


def mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.1f} MiB"


# -- the rules for one path


class Explanation(Struct, frozen=True):
    """The explanation. `at` is the path that the rule is about: the path itself, or an excluded folder above it."""

    included: bool
    at: str
    rule: Rule | None = None
    note: str = ""


def explain(workspace: str, selection: Selection, path: str, personal_excludes: str = "") -> Explanation:
    """Descend to the path as a scan would; one with a slash at its end would be a folder. Raises `WorkspaceError`."""
    path, is_folder = path.rstrip("/"), path.endswith("/")
    if not path:
        return Explanation(included=True, at=path)
    with safe_open.DirCursor(safe_open.open_workspace(workspace)) as cursor:
        try:
            outer = read_rules_outside(workspace, selection, personal_excludes).rules
        except OSError as failure:
            return Explanation(included=False, at=path, note=f"because {failure.strerror}")
        scope, rule, decided_at = selection.root(outer), None, path
        status: os.stat_result | None = os.stat(workspace)
        for at in accumulate(path.split("/"), "{}/{}".format):
            name = at.rpartition("/")[2]
            try:
                if status is not None:  # else there is nothing below it either
                    parent, _ = cursor.parent_of(at)
                    scope = scope.with_files(read_ignore_files(parent, scope.ignore_files))
                    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except OSError as failure:
                if failure.errno not in _ABSENT:
                    note = f"because it cannot be read ({failure.strerror})"
                    return Explanation(included=False, at=at, note=note)
                status = None
            if at != path and status is not None and stat.S_ISLNK(status.st_mode):
                return Explanation(included=False, at=path, note=f"as {shown_path(at)} above it is a link")
            is_dir = at != path or is_folder if status is None else stat.S_ISDIR(status.st_mode)
            decision = scope.decide(name, is_dir)
            if decision.included and status is not None and (status.st_dev, status.st_ino) in outer.own_inodes:
                decision = OWN_FILE
            if decision.included and too_long(at):
                decision = TOO_LONG
            if not decision.included:
                return Explanation(included=False, at=at, rule=decision.rule)
            if decision.rule is not None:  # a folder that is brought back brings what is in it
                rule, decided_at = decision.rule, at
            if is_dir:
                scope = scope.enter(name)
        if status is None:
            return Explanation(included=True, at=decided_at, rule=rule, note="it does not exist")
        return _leaf(workspace, path, status, parent) or Explanation(included=True, at=decided_at, rule=rule)


def _leaf(workspace: str, path: str, status: os.stat_result, parent: int) -> Explanation | None:
    """Return why a path that no rule excludes is excluded by what it is; None: it is not."""
    name = path.rsplit("/", 1)[-1]
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(name, dir_fd=parent)
        if not stays_inside(path, target) or leads_out(path, target, lambda at: _link_at(workspace, at)):
            return Explanation(included=False, at=path, rule=OUTSIDE.rule)
    elif not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return Explanation(included=False, at=path, rule=SPECIAL.rule)
    elif not os.access(name, os.R_OK, dir_fd=parent, effective_ids=True):
        return Explanation(included=False, at=path, note="because it cannot be read")
    return None


def _link_at(workspace: str, path: str) -> str | None:
    try:
        target = os.readlink(os.path.join(workspace, path))
    except OSError:
        return None
    return target if stays_inside(path, target) else None


class PathRules:
    """The rules of one workspace, read as they are now; a folder's rules are read once."""

    def __init__(self, workspace: str, selection: Selection, personal_excludes: str = "") -> None:
        self._workspace = workspace
        os.close(safe_open.open_workspace(workspace))  # one that is gone is not taken for unreadable rules
        try:
            outer = read_rules_outside(workspace, selection, personal_excludes).rules
        except OSError as failure:
            raise WorkspaceError(
                f"the rules of git cannot be read ({failure.strerror})", "let your user read them"
            ) from None
        self._scopes: dict[str, Scope | None] = {}
        self._outer = selection.root(outer)

    def exclude(self, path: str, is_dir: bool) -> bool:
        """True if the rules exclude the path, or a folder above it. Raises `WorkspaceError`."""
        parent, _, name = path.rpartition("/")
        scope = self._scope(parent)
        return scope is None or too_long(path) or not scope.decide(name, is_dir).included

    def _scope(self, folder: str) -> Scope | None:
        """The rules in that folder; None if it is excluded itself."""
        if folder not in self._scopes:
            scope: Scope | None = self._outer
            if folder:
                parent, _, name = folder.rpartition("/")
                scope = self._scope(parent)
                if scope is not None:
                    scope = scope.enter(name) if scope.decide(name, True).included else None
            self._scopes[folder] = None if scope is None else self._with_files(folder, scope)
        return self._scopes[folder]

    def _with_files(self, folder: str, scope: Scope) -> Scope:
        with safe_open.DirCursor(safe_open.open_workspace(self._workspace)) as cursor:
            try:
                descriptor, _ = cursor.parent_of(f"{folder}/." if folder else ".")
                return scope.with_files(read_ignore_files(descriptor, scope.ignore_files))
            except OSError:  # it does not exist here, or cannot be read
                return scope
