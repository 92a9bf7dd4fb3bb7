"""The walk over the workspace: the truth about what is there, which events only hint at.

Directories are opened from their parents' descriptors, rules are asked before `stat`, and what is left out is neither
walked nor watched. `Coverage.cover` is called before a directory is listed, so nothing that appears between the two is
missed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from syncd.base.errors import WorkspaceError
from syncd.base.problem import Problem
from syncd.effects import descent
from syncd.effects.coverage import Coverage, NoCoverage
from syncd.effects.ignore_files import read_excludes, read_ignore_files
from syncd.effects.listing import Listing, Tree
from syncd.effects.tar_format import permissions
from syncd.policy.links import stays_inside
from syncd.policy.manifest import Entry, Kind, Manifest, Stamp
from syncd.policy.selection import Decision, Rule, Scope, Selection

_SECOND_NS = 1_000_000_000

OUTSIDE = Rule("built-in", None, "links that lead outside the workspace")
SPECIAL = Rule("built-in", None, "sockets, FIFOs and devices")


# What opening says of a path that went, or was swapped, since it was seen.
_VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

# Directories with hard-linked files that are worth listing at each look; with more, looking at all is simpler.
_SHARED_AT_MOST = 256

LeftOut = Callable[[str, bool, Decision], None]


@dataclass
class Scan:
    """What one walk found. `unread` paths are there but could not be looked into: they are not deleted."""

    manifest: Manifest = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)


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
        self._tree = Tree()

    def scan(self, changed: Collection[str] | None = None) -> Scan:
        """Look at everything, or only at directories in which something changed since the last scan.

        `changed` is to be trusted only if it names every such directory; wherever it does not tell enough (a rule
        changed, a directory cannot be opened, nothing is remembered), everything is looked at all the same. A
        directory's own time, which ignored files change too, may be older than it is until all is looked at. Raises
        `WorkspaceError` if the workspace itself cannot be read, `Stop` if asked to end.
        """
        try:
            if changed is None or not self._look_at(changed):
                self._look_at_all()
        except BaseException:
            self._tree = Tree()  # half old, half new
            raise
        return self._found()

    def learn(self, manifest: Mapping[str, Entry]) -> None:
        """Remember these paths' contents until their directories change."""
        self._tree.learn(manifest)

    def _found(self) -> Scan:
        found = Scan(self._tree.manifest())
        for listing in self._tree.listings.values():
            found.problems += listing.problems
            found.unread |= listing.unread
        return found

    def _look_at_all(self) -> None:
        self._tree = Tree()
        self._coverage.begin()
        try:
            top = descent.open_workspace(self._workspace)
            try:
                here = self._list(top, "", self._selection.root(read_excludes(top, self._personal)))
            except OSError as failure:
                raise WorkspaceError(
                    f"the workspace {self._workspace!r} cannot be read ({failure.strerror})", "let your user read it"
                ) from None
            self._tree.listings[""] = here.listing
            self._go_down(here)
        except BaseException:
            self._coverage.abandon()
            raise
        self._coverage.finish()

    def _look_at(self, changed: Collection[str]) -> bool:
        """List these directories anew; False where that is not enough."""
        listings = self._tree.listings
        if "" not in listings:
            return False
        with descent.Descent(descent.open_workspace(self._workspace)) as down:
            top, _ = down.parent_of(".")
            status = os.fstat(top)
            if listings[""].identity != (status.st_dev, status.st_ino):
                return False
            shared, shared_files = self._tree.with_shared_files(), self._tree.shared_files()
            if len(shared) > _SHARED_AT_MOST:
                return False
            todo = sorted({*changed, *shared}, reverse=True)
            links_done = False
            while todo:
                path = todo.pop()
                old = listings.get(path)
                if old is None:
                    continue  # gone or left out by now; if that matters, the directory above it is named too
                try:
                    parent, _ = down.parent_of(f"{path}/." if path else ".")
                    new = self._list(os.dup(parent), path, old.outer)
                except OSError as failure:
                    if failure.errno in _VANISHED:
                        continue
                    return False
                if new.listing.rules != old.rules or new.listing.identity != old.identity:
                    os.close(new.descriptor)
                    return False
                self._replace(path, old, new)
                if not links_done and (old.links or new.listing.links or old.directories != new.listing.directories):
                    # Ways may lead elsewhere now: every link is asked again whether it stays inside.
                    links_done = True
                    todo += sorted(self._tree.with_links(), reverse=True)
        # A new second name says that some first name's directory, heard nothing of, holds one as well.
        return self._tree.shared_files() <= shared_files

    def _replace(self, path: str, old: Listing, new: _Open) -> None:
        listings = self._tree.listings
        for gone in self._tree.lost(old, new.listing):
            self._tree.drop(gone)
        listings[path] = new.listing
        new.below = [below for below in new.below if below not in listings]
        above = listings.get(path.rpartition("/")[0])
        if path and above is not None and path in above.entries:
            above.entries[path] = _directory_entry(os.fstat(new.descriptor))
        self._go_down(new)

    def _go_down(self, start: _Open) -> None:
        """Walk what is below a directory that was listed. Closes all descriptors."""
        stack = [start]
        try:
            while stack:
                here = stack[-1]
                if not here.below:
                    os.close(stack.pop().descriptor)
                    continue
                self._check()
                path = here.below.pop()
                name = path.rpartition("/")[2]
                try:
                    descriptor = descent.open_directory(name, here.descriptor)
                    below = self._list(descriptor, path, here.listing.scope.enter(name))
                except OSError as failure:
                    del here.listing.entries[path], here.listing.directories[path]
                    _missed(here.listing, path, failure)
                    continue
                self._tree.listings[path] = below.listing
                stack.append(below)
        finally:
            for directory in stack:
                os.close(directory.descriptor)

    def _list(self, descriptor: int, path: str, outer: Scope) -> _Open:
        """List the directory of a descriptor, which is closed if that fails. Raises `OSError`."""
        try:
            # Watched before its rules are read, or a change of them in between would be missed; then again with them.
            self._coverage.cover(path, descriptor, outer)
            rules = read_ignore_files(descriptor, outer.ignore_files)
            scope = outer
            if rules:
                scope = outer.with_files(rules)
                self._coverage.cover(path, descriptor, scope)
            status = os.fstat(descriptor)
            listing = Listing((status.st_dev, status.st_ino), outer, scope, rules)
            with os.scandir(descriptor) as items:
                names = sorted(((os.fsencode(item.name), item) for item in items), key=_name)
            for _, item in names:
                self._item(listing, path, item, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return _Open(descriptor, listing, list(listing.directories))

    def _item(self, listing: Listing, folder: str, item: os.DirEntry[str], parent: int) -> None:
        path = f"{folder}/{item.name}" if folder else item.name
        try:
            is_dir = item.is_dir(follow_symlinks=False)  # a file system that does not tell kinds is asked again here
        except OSError as failure:
            _missed(listing, path, failure)
            return
        decision = listing.scope.decide(item.name, is_dir)
        if not decision.included:
            self._on_left_out(path, is_dir, decision)
            return
        try:
            status = item.stat(follow_symlinks=False)
        except OSError as failure:
            _missed(listing, path, failure)
            return
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            # Opening each file to learn whether it may be read would double the walk; most modes say it.
            if status.st_mode & 0o444 != 0o444 and not os.access(item.name, os.R_OK, dir_fd=parent, effective_ids=True):
                _missed(listing, path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
                return
            if status.st_nlink > 1:
                listing.shared.add((status.st_dev, status.st_ino))
            listing.entries[path] = file_entry(status)
        elif kind == stat.S_IFDIR:
            listing.entries[path] = _directory_entry(status)
            listing.directories[path] = (status.st_dev, status.st_ino)
        elif kind == stat.S_IFLNK:
            self._link(listing, path, item.name, parent, status)
        else:
            self._on_left_out(path, False, Decision(False, SPECIAL))

    def _link(self, listing: Listing, path: str, name: str, parent: int, status: os.stat_result) -> None:
        listing.links += 1
        try:
            target = os.readlink(name, dir_fd=parent)
        except OSError as failure:
            _missed(listing, path, failure)
            return
        if leads_inside(self._workspace, path, target, name, parent):
            listing.entries[path] = Entry(Kind.SYMLINK, 0o777, _seconds(status), target=target)
            return
        self._on_left_out(path, False, Decision(False, OUTSIDE))
        listing.problems.append(
            Problem(
                f"link:{path}",
                f"the link {path!r} leads outside the workspace or in a circle, and stays home",
                "let it point inside the workspace, or ignore it",
            )
        )


@dataclass
class _Open:
    """A directory that was listed and is still open; `below` are those in it that are still to be walked."""

    descriptor: int
    listing: Listing
    below: list[str]


def _missed(listing: Listing, path: str, failure: OSError) -> None:
    """What vanished or was swapped under the walk brings its own event; what cannot be read is named."""
    if failure.errno in _VANISHED:
        return
    listing.unread.add(path)
    listing.problems.append(unreadable(path, failure))


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


def _directory_entry(status: os.stat_result) -> Entry:
    return Entry(Kind.DIRECTORY, permissions(status.st_mode), _seconds(status))


def _name(named: tuple[bytes, os.DirEntry[str]]) -> bytes:
    return named[0]


def _seconds(status: os.stat_result) -> int:
    return status.st_mtime_ns // _SECOND_NS
