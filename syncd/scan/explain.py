"""Explains why one path is in the snapshot or not, by the same checks as the scan."""

from __future__ import annotations

import errno
import os
import stat

from msgspec import Struct

from syncd.model.symlinks import leads_out, stays_inside
from syncd.scan.exclusions import OUTSIDE, OWN_FILE, SPECIAL, TOO_LONG
from syncd.scan.limits import too_long
from syncd.selection import safe_open
from syncd.selection.ignore_files import read_ignore_files, read_rules_outside
from syncd.selection.selection import Rule, Selection


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
        names = path.split("/")
        try:
            outer = read_rules_outside(workspace, selection, personal_excludes).rules
        except OSError as failure:
            return Explanation(included=False, at=path, note=f"because {failure.strerror}")
        scope, rule = selection.root(outer), None
        for depth, name in enumerate(names):
            at = "/".join(names[: depth + 1])
            try:
                parent, _ = cursor.parent_of(at)
                files = read_ignore_files(parent, scope.ignore_files)
                scope = scope.with_files(files)
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except OSError as failure:
                return _absent(scope.decide(name, depth < len(names) - 1).included, at, path, failure)
            is_dir = stat.S_ISDIR(status.st_mode)
            decision = scope.decide(name, is_dir)
            if decision.included and (status.st_dev, status.st_ino) in outer.own_inodes:
                decision = OWN_FILE
            if not decision.included:
                return Explanation(included=False, at=at, rule=decision.rule)
            if too_long(at):
                return Explanation(included=False, at=at, rule=TOO_LONG.rule)
            rule = decision.rule
            if is_dir:
                scope = scope.enter(name)
        return _leaf(workspace, path, status, parent, rule)


def _leaf(workspace: str, path: str, status: os.stat_result, parent: int, rule: Rule | None) -> Explanation:
    name = path.rsplit("/", 1)[-1]
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(name, dir_fd=parent)
        if not stays_inside(path, target) or leads_out(path, target, lambda at: _link_at(workspace, at)):
            return Explanation(included=False, at=path, rule=OUTSIDE.rule)
    elif not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return Explanation(included=False, at=path, rule=SPECIAL.rule)
    elif not os.access(name, os.R_OK, dir_fd=parent, effective_ids=True):
        return Explanation(included=False, at=path, note="because it cannot be read")
    return Explanation(included=True, at=path, rule=rule)


def _link_at(workspace: str, path: str) -> str | None:
    try:
        target = os.readlink(os.path.join(workspace, path))
    except OSError:
        return None
    return target if stays_inside(path, target) else None


def _absent(included: bool, at: str, path: str, failure: OSError) -> Explanation:
    if failure.errno in (errno.ENOENT, errno.ENOTDIR):
        return Explanation(included=included, at=path, note="it does not exist, and no rule matches it")
    return Explanation(included=False, at=at, note=f"because it cannot be read ({failure.strerror})")
