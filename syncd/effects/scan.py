"""The walk over the workspace: the truth about what is there, which events only hint at.

Directories are opened from their parents' descriptors, rules are asked before `stat`, and what is left out is neither
walked nor watched. `Coverage.cover` is called before a directory is listed, so nothing that appears between the two is
missed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from syncd.base.problem import Problem
from syncd.effects import descent
from syncd.effects.ignore_files import read_excludes, read_ignore_files
from syncd.effects.tar_format import permissions
from syncd.policy.links import stays_inside
from syncd.policy.manifest import Entry, Kind, Manifest, Stamp
from syncd.policy.selection import Decision, Rule, Scope, Selection

_SECOND_NS = 1_000_000_000

OUTSIDE = Rule("built-in", None, "links that lead outside the workspace")
SPECIAL = Rule("built-in", None, "sockets, FIFOs and devices")


class Coverage(Protocol):
    """What wants to know which directories a scan walks: the watch, or nobody."""

    def begin(self) -> None:
        """A scan of the whole workspace starts."""

    def cover(self, path: str, fd: int, scope: Scope) -> None:
        """The directory is about to be listed."""

    def finish(self) -> None:
        """The scan is whole: what it did not cover is gone."""

    def abandon(self) -> None:
        """The scan failed and says nothing."""


class NoCoverage:
    """For commands that look once."""

    def begin(self) -> None:
        pass

    def cover(self, path: str, fd: int, scope: Scope) -> None:
        pass

    def finish(self) -> None:
        pass

    def abandon(self) -> None:
        pass


LeftOut = Callable[[str, bool, Decision], None]


@dataclass
class Scan:
    """What one walk found. `unread` paths are there but could not be looked into: they are not deleted."""

    manifest: Manifest = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    left_out: int = 0
    identity: tuple[int, int] = (0, 0)


@dataclass
class _Open:
    """A directory in the middle of its walk."""

    descriptor: int
    path: str
    scope: Scope
    names: list[tuple[bytes, os.DirEntry[str]]]


def nobody(path: str, is_dir: bool, decision: Decision) -> None:
    """Who does not want to know what is left out."""


class Scanner:
    """Walks one workspace under one selection."""

    def __init__(
        self,
        workspace: str,
        selection: Selection,
        coverage: Coverage | None = None,
        on_left_out: LeftOut = nobody,
        check: Callable[[], None] = lambda: None,
        *,
        personal_excludes: str = "",
    ) -> None:
        self._workspace = workspace
        self._selection = selection
        self._coverage = coverage or NoCoverage()
        self._on_left_out = on_left_out
        self._check = check
        self._personal = personal_excludes

    def scan(self) -> Scan:
        """Walk everything. Raises `WorkspaceError` if the workspace itself cannot be read, `Stop` if asked to end."""
        found = Scan()
        self._coverage.begin()
        open_directories: list[_Open] = []
        try:
            top = descent.open_workspace(self._workspace)
            status = os.fstat(top)
            found.identity = (status.st_dev, status.st_ino)
            scope = self._selection.root(read_excludes(top, self._personal))
            open_directories.append(self._enter(found, top, "", scope))
            self._walk(found, open_directories)
        except BaseException:
            self._coverage.abandon()
            raise
        finally:
            for directory in open_directories:
                os.close(directory.descriptor)
        self._coverage.finish()
        return found

    def _walk(self, found: Scan, open_directories: list[_Open]) -> None:
        # A stack, not recursion: a workspace may be nested deeper than Python calls may be.
        while open_directories:
            here = open_directories[-1]
            if not here.names:
                os.close(open_directories.pop().descriptor)
                continue
            _, item = here.names.pop()
            path = f"{here.path}/{item.name}" if here.path else item.name
            is_dir = item.is_dir(follow_symlinks=False)
            decision = here.scope.decide(item.name, is_dir)
            if not decision.included:
                self._leave_out(found, path, is_dir, decision)
                continue
            try:
                status = item.stat(follow_symlinks=False)
            except OSError as failure:
                self._missed(found, path, failure)
                continue
            if stat.S_ISDIR(status.st_mode):
                self._check()
                try:
                    descriptor = descent.open_directory(item.name, here.descriptor)
                except OSError as failure:
                    self._missed(found, path, failure)
                    continue
                found.manifest[path] = Entry(Kind.DIRECTORY, permissions(status.st_mode), _seconds(status))
                try:
                    open_directories.append(self._enter(found, descriptor, path, here.scope.enter(item.name)))
                except OSError as failure:
                    os.close(descriptor)
                    del found.manifest[path]
                    self._missed(found, path, failure)
            else:
                self._leaf(found, path, item.name, here.descriptor, status)

    def _leaf(self, found: Scan, path: str, name: str, parent: int, status: os.stat_result) -> None:
        if stat.S_ISREG(status.st_mode):
            # Opening each file to learn whether it may be read would double the walk; most modes say it.
            if status.st_mode & 0o444 != 0o444 and not os.access(name, os.R_OK, dir_fd=parent, effective_ids=True):
                self._missed(found, path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
                return
            found.manifest[path] = file_entry(status)
        elif stat.S_ISLNK(status.st_mode):
            self._link(found, path, name, parent, status)
        else:
            self._leave_out(found, path, False, Decision(False, SPECIAL))

    def _link(self, found: Scan, path: str, name: str, parent: int, status: os.stat_result) -> None:
        try:
            target = os.readlink(name, dir_fd=parent)
        except OSError as failure:
            self._missed(found, path, failure)
            return
        if leads_inside(self._workspace, path, target, name, parent):
            found.manifest[path] = Entry(Kind.SYMLINK, 0o777, _seconds(status), target=target)
            return
        self._leave_out(found, path, False, Decision(False, OUTSIDE))
        found.problems.append(
            Problem(
                f"link:{path}",
                f"the link {path!r} leads outside the workspace or in a circle, and stays home",
                "let it point inside the workspace, or ignore it",
            )
        )

    def _enter(self, found: Scan, descriptor: int, path: str, scope: Scope) -> _Open:
        """List a directory whose descriptor is open, its own ignore files read first. Raises `OSError`."""
        # Watched before its rules are read, or a change of the rules in between would be missed; then again with them.
        self._coverage.cover(path, descriptor, scope)
        files, problems = read_ignore_files(descriptor, path, scope.ignore_files)
        found.problems += problems
        if files:
            scope = scope.with_files(files)
            self._coverage.cover(path, descriptor, scope)
        with os.scandir(descriptor) as listing:
            names = [(os.fsencode(item.name), item) for item in listing]
        names.sort(key=_name, reverse=True)  # taken from the end
        return _Open(descriptor, path, scope, names)

    def _leave_out(self, found: Scan, path: str, is_dir: bool, decision: Decision) -> None:
        found.left_out += 1
        self._on_left_out(path, is_dir, decision)

    def _missed(self, found: Scan, path: str, failure: OSError) -> None:
        """What vanished or was swapped under the walk brings its own event; what cannot be read is named."""
        if failure.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        found.unread.add(path)
        found.problems.append(unreadable(path, failure))


def leads_inside(workspace: str, path: str, target: str, name: str, parent: int) -> bool:
    """Whether a link stays inside the workspace by its text and by where it ends, and ends somewhere.

    One that only dangles may be whole over there; one that goes in a circle makes newer extractors give up.
    """
    if not stays_inside(path, target):
        return False
    real = os.path.realpath(os.path.join(workspace, path))
    if real != workspace and not real.startswith(workspace + "/"):
        return False
    try:
        os.stat(name, dir_fd=parent)
    except OSError as failure:
        return failure.errno != errno.ELOOP
    return True


def unreadable(path: str, failure: OSError) -> Problem:
    """The warning about a file or directory that is left out because it cannot be read."""
    remedy = "let your user read it, or ignore it" if failure.errno == errno.EACCES else "mend it, or ignore it"
    return Problem(f"unreadable:{path}", f"{path!r} cannot be read ({failure.strerror}) and is left out", remedy)


def file_entry(status: os.stat_result) -> Entry:
    """The entry of a regular file whose content is not known yet."""
    return Entry(
        Kind.FILE,
        permissions(status.st_mode),
        _seconds(status),
        status.st_size,
        stamp=Stamp(status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev),
    )


def _name(named: tuple[bytes, os.DirEntry[str]]) -> bytes:
    return named[0]


def _seconds(status: os.stat_result) -> int:
    return status.st_mtime_ns // _SECOND_NS
