"""The rules for one path: why it is in the snapshot or not, and if one that does not exist yet would be.

The checks are those of the scan.
"""

from __future__ import annotations

import errno
import os
import stat
from itertools import accumulate

from msgspec import Struct

from syncd.core import safe_open
from syncd.core.errors import WorkspaceError
from syncd.core.text import shown_path
from syncd.model.entry import leads_out, stays_inside
from syncd.scan.exclusions import OUTSIDE, OWN_FILE, SPECIAL, TOO_LONG, too_long
from syncd.selection.ignore_files import read_ignore_files, read_rules_outside
from syncd.selection.selection import Rule, Scope, Selection

# There is nothing of that path.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})


class Explanation(Struct, frozen=True):
    """The explanation. `at` is the path that the rule is about: the path itself, or an excluded folder above it."""

    included: bool
    at: str
    rule: Rule | None = None
    note: str = ""


def explain(workspace: str, selection: Selection, path: str, personal_excludes: str = "") -> Explanation:
    """Descend to the path as a scan would. Raises `WorkspaceError`."""
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
            is_dir = at != path if status is None else stat.S_ISDIR(status.st_mode)
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
