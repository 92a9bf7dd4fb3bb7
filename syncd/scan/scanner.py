"""Walks the workspace, and returns what is in it. Events only hint at changes; the scan is the truth.

Directories are opened from their parents' descriptors, names are matched with the rules before `stat`, and excluded
directories are neither walked nor watched. `ScanListener.add_directory` is called before a directory is listed, so a
change between the two is not missed. The results of the last scan save matching the rules again, but are compared with
`stat`. If that is unchanged, the entry remains the same object, so later steps do not need to compare it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from syncd.core.errors import WorkspaceError
from syncd.core.file_identity import FileIdentity, identity_at, identity_of, persistent_identity_of
from syncd.core.warning import SyncWarning
from syncd.scan.exclusions import (
    OUTSIDE,
    SPECIAL,
    TOO_LONG,
    count_by_source,
    leads_outside,
    too_deep,
    unreadable,
)
from syncd.scan.inode import directory_entry, file_entry, is_unchanged, mtime_s
from syncd.scan.links import leads_out, stays_inside, turns_back
from syncd.scan.manifest import Entry, Kind, Manifest
from syncd.scan.rules_check import rules_unchanged
from syncd.scan.size_limit import too_long
from syncd.scan.tree_cache import DirRecord, TreeCache, in_order
from syncd.selection import safe_open
from syncd.selection.ignore_files import GitRules, read_git_rules, read_ignore_files
from syncd.selection.selection import Decision, OuterRules, Scope, Selection
from syncd.watch.scan_listener import NoScanListener, ScanListener

# What opening says of a path that went, or was swapped, since it was seen.
_VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

# Directories with hard-linked files that are worth listing at each look; with more, looking at all is simpler.
_SHARED_AT_MOST = 256
# Rules outside that change again and again bring events, so another look follows.
_READ_AT_MOST = 3
# Rules that change under each of so many listings bring events that always count, so another look follows.
_LISTED_AT_MOST = 3
NO_RULES: Mapping[str, bytes] = {}
LeftOut = Callable[[str, bool, Decision], None]


@dataclass
class Scan:
    """What one walk found. `unread` paths are there but could not be looked into; `left_out` counts by who says so."""

    identity: FileIdentity = field(default_factory=FileIdentity)  # of the workspace's own directory
    manifest: Manifest = field(default_factory=dict)
    warnings: list[SyncWarning] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    left_out: dict[str, int] = field(default_factory=dict)


def ignore_left_out(path: str, is_dir: bool, decision: Decision) -> None:
    """Who does not want to know what is left out."""


class Scanner:
    """Walks one workspace under one selection."""

    def __init__(
        self,
        workspace: str,
        selection: Selection,
        scan_listener: ScanListener | None = None,
        on_left_out: LeftOut = ignore_left_out,
        check: Callable[[], None] = lambda: None,
        *,
        personal_excludes: str = "",
    ) -> None:
        self._workspace = workspace
        self._selection = selection
        self._scan_listener = scan_listener or NoScanListener()
        self._on_left_out = on_left_out
        self._check = check
        self._personal = personal_excludes
        self._tree = TreeCache()
        self._before = self._tree  # what the last whole look found, while the next one goes on
        self._top: tuple[OuterRules, Scope] | None = None

    def scan(self, changed: Collection[str] | None = None) -> Scan:
        """Look at everything, or only at directories in which something changed since the last scan.

        `changed` is to be trusted only if it names every such directory; wherever it does not tell enough (a rule
        changed, a directory cannot be opened, nothing is remembered), everything is looked at all the same. A
        directory's own time, which ignored files change too, may be older than it is until all is looked at. Raises
        `WorkspaceError` if the workspace itself cannot be read, `TryLater` if the machine is short of descriptors or
        memory, `Stop` if asked to end.
        """
        try:
            if changed is None or not self._look_at(changed):
                self._look_at_all()
        except BaseException:
            self._tree = TreeCache()  # half old, half new
            raise
        return self._found()

    def learn(self, manifest: Mapping[str, Entry]) -> None:
        """Remember these paths' contents until their directories change."""
        for path, entry in manifest.items():
            self._tree.set_entry(path, entry)

    def is_excluded(self, path: str, is_dir: bool) -> bool:
        """Whether a path that the last look did not find is there all the same, or would be left out if it were."""
        folder, names = "", path.split("/")
        for name in names:
            listing = self._tree.get(folder)
            if listing is None:
                break
            folder = f"{folder}/{name}" if folder else name
            if not listing.scope.decide(name, is_dir or folder.count("/") < len(names) - 1).included:
                return True
        return os.path.lexists(os.path.join(self._workspace, path))

    def all_names(self, paths: Collection[str]) -> set[str]:
        """These paths, and the other names of the same files."""
        return self._tree.all_names(paths)

    def disbelieve(self, paths: Collection[str]) -> None:
        """What is known of these paths' contents is not to be believed by the next look at their directories."""
        self._tree.disbelieve(paths)

    def rules_unchanged(self, paths: Collection[str]) -> bool:
        """Whether the rules by which the last scan found these paths are the rules still."""
        outer = self._top[0] if self._top and self._selection.uses_gitignore else None
        return rules_unchanged(self._workspace, self._tree, outer, self._personal, paths)

    def _found(self) -> Scan:
        top = self._tree.get("")
        found = Scan(
            top.identity if top else FileIdentity(),
            self._tree.manifest(),
            left_out=count_by_source(self._tree.left_out),
        )
        turning: list[str] = []
        for issues in self._tree.issues():
            found.warnings += issues.warnings
            found.unread |= issues.unread
            turning += issues.turning_links
        self._leave_out_through_others(found, turning)
        return found

    def _leave_out_through_others(self, found: Scan, turning: list[str]) -> None:
        """Take out those of the links whose text stays inside but leads out through other links of the snapshot."""

        def link_at(path: str) -> str | None:
            entry = found.manifest.get(path)
            return entry.target if entry is not None and entry.kind is Kind.SYMLINK else None

        outside = [path for path in turning if leads_out(path, link_at(path) or "", link_at)]
        for path in outside:
            del found.manifest[path]
            found.warnings.append(leads_outside(path))
            self._on_left_out(path, False, OUTSIDE)
        if outside and OUTSIDE.rule is not None:
            for word, number in count_by_source({OUTSIDE.rule: len(outside)}).items():
                found.left_out[word] = found.left_out.get(word, 0) + number

    def _look_at_all(self) -> None:
        self._before, self._tree = self._tree, TreeCache()
        self._scan_listener.begin()
        try:
            top = safe_open.open_workspace(self._workspace)
            try:
                outer, known = self._top_scope(top), self._before.get("")
                here = self._list(top, "", outer, known if known and known.outer is outer else None)
            except OSError as failure:
                safe_open.raise_if_exhausted(failure)
                raise WorkspaceError(
                    f"the workspace {self._workspace!r} cannot be read ({failure.strerror})", "let your user read it"
                ) from None
            self._tree.put("", here.listing)
            self._go_down(here)
        except BaseException:
            self._scan_listener.abort()
            raise
        finally:
            self._before = self._tree
        self._scan_listener.finish()

    def _top_scope(self, top: int) -> Scope:
        """The same object while git's outer rules say the same. Closes the descriptor if that fails."""
        try:
            outer = self._watched_git_rules().rules
        except BaseException:
            os.close(top)
            raise
        if self._top is None or self._top[0] != outer:
            self._top = outer, self._selection.root(outer)
        return self._top[1]

    def _watched_git_rules(self) -> GitRules:
        """As they are while their places are watched, or a change between the look and the watch would be missed."""
        read = self._git_rules()
        for _ in range(_READ_AT_MOST):
            self._scan_listener.add_rule_files(read.directories)
            before, read = read, self._git_rules()
            if read == before:
                break
        return read

    def _git_rules(self) -> GitRules:
        return read_git_rules(self._workspace, self._personal) if self._selection.uses_gitignore else GitRules()

    def _outer_rules_unchanged(self) -> bool:
        try:
            return self._top is not None and self._git_rules().rules == self._top[0]
        except OSError:
            return False  # the look at all says what cannot be read

    def _look_at(self, changed: Collection[str]) -> bool:
        """List these directories anew; False where that is not enough."""
        whole = self._tree.get("")
        if whole is None:
            return False
        with safe_open.DirCursor(safe_open.open_workspace(self._workspace)) as cursor:
            top, _ = cursor.parent_of(".")
            if whole.identity != persistent_identity_of(top):
                return False
            if not self._outer_rules_unchanged():
                return False
            shared, shared_files = self._tree.with_shared_files(), self._tree.shared_files()
            if len(shared) > _SHARED_AT_MOST:
                return False
            todo = sorted({*changed, *shared}, reverse=True)
            while todo:
                path = todo.pop()
                old = self._tree.get(path)
                if old is None:
                    continue  # gone or left out by now; if that matters, the directory above it is named too
                try:
                    parent, _ = cursor.parent_of(f"{path}/." if path else ".")
                    new = self._list(os.dup(parent), path, old.outer, old)
                except OSError as failure:
                    if failure.errno in _VANISHED:
                        continue
                    return False
                if new.listing.rules != old.rules or new.listing.identity != old.identity:
                    os.close(new.descriptor)
                    return False
                self._replace(path, old, new)
        # A new second name says that some first name's directory, heard nothing of, holds one as well.
        return self._tree.shared_files() <= shared_files

    def _replace(self, path: str, old: DirRecord, new: _Open) -> None:
        there = set(new.listing.directories)
        for below in old.directories:
            if below not in there or not self._is_as_listed(below, new):
                self._tree.drop(below)
        self._tree.put(path, new.listing)
        new.below = [below for below in new.below if self._tree.get(below) is None]
        if path:
            self._tree.set_entry(path, directory_entry(os.fstat(new.descriptor)))
        self._go_down(new)

    def _is_as_listed(self, path: str, folder: _Open) -> bool:
        """Whether it is the directory that was listed under this path, and not the next one of its name."""
        listing = self._tree.get(path)
        try:
            return listing is not None and identity_at(path.rpartition("/")[2], folder.descriptor) == listing.identity
        except OSError:
            return False

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
                known = self._before.get(path) if here.rules_unchanged else None
                outer = here.listing.scope.enter(name) if known is None else known.outer
                try:
                    below = self._list(safe_open.open_directory(name, here.descriptor), path, outer, known)
                except OSError as failure:
                    del here.listing.entries[path]
                    here.listing.directories.remove(path)
                    _missed(here.listing, path, failure)
                    self._tree.put(here.path, here.listing)
                    continue
                self._tree.put(path, below.listing)
                stack.append(below)
        finally:
            for directory in stack:
                os.close(directory.descriptor)

    def _list(self, descriptor: int, path: str, outer: Scope, known: DirRecord | None) -> _Open:
        """List the directory of a descriptor, which is closed if that fails. Raises `OSError`.

        `known` is what an earlier look found there under the same `outer`.
        """
        try:
            scope, covered_rules = (outer, NO_RULES) if known is None else (known.scope, known.rules)
            for _ in range(_LISTED_AT_MOST):
                # Watched before it is listed and its rules are read, or a change in between would be missed. Under
                # other rules than these, events of what belongs may have been passed over: watched and listed again.
                self._scan_listener.add_directory(path, descriptor, scope)
                with os.scandir(descriptor) as found:
                    items = {item.name: item for item in found}
                files = [name for name in outer.ignore_files if name in items]
                rules = read_ignore_files(descriptor, files) if files else NO_RULES
                if rules == covered_rules:
                    break
                scope, covered_rules = outer.with_files(rules) if rules else outer, rules
            else:
                self._scan_listener.add_directory(path, descriptor, scope)
            rules_unchanged = known is not None and known.rules == rules
            identity = identity_of(descriptor) if path else persistent_identity_of(descriptor)
            listing = DirRecord(identity, outer, scope, rules)
            held = known.entries if known is not None and rules_unchanged else {}
            self._fill(listing, path, items, descriptor, held)
        except BaseException:
            os.close(descriptor)
            raise
        return _Open(path, descriptor, listing, list(listing.directories), rules_unchanged)

    def _fill(
        self,
        listing: DirRecord,
        folder: str,
        items: Mapping[str, os.DirEntry[str]],
        parent: int,
        held: Mapping[str, Entry],
    ) -> None:
        """What is in the directory; `held` was in it by the same rules."""
        prefix = folder and folder + "/"
        entries = listing.entries
        goes_too_deep = False
        for name in in_order(items):
            item = items[name]
            path = prefix + name
            try:
                is_dir = item.is_dir(follow_symlinks=False)  # a file system that tells no kinds is asked again here
                old = held.get(path)
                if old is None or (old.kind is Kind.DIRECTORY) is not is_dir:
                    old = None
                    decision = listing.scope.decide(name, is_dir)
                    if decision.included and too_long(path):
                        decision = TOO_LONG
                        goes_too_deep = True
                    if not decision.included:
                        self._leave_out(listing, path, is_dir, decision)
                        continue
                status = item.stat(follow_symlinks=False)
                if status.st_nlink > 1 and not is_dir:
                    self._scan_listener.add_file(path, name, parent)
                    status = os.stat(name, dir_fd=parent, follow_symlinks=False)  # as it is under the watch
            except OSError as failure:
                if failure.errno == errno.EACCES:
                    raise  # a directory that may be listed but not searched
                _missed(listing, path, failure)
                continue
            if stat.S_ISDIR(status.st_mode) is not is_dir:
                continue  # swapped since it was listed, so the rules were asked of another kind: an event follows
            if old is not None and is_unchanged(old, status):
                entries[path] = old
            else:
                self._item(listing, path, name, parent, status)
            if is_dir and path in entries:
                listing.directories.append(path)
            elif status.st_nlink > 1 and path in entries:
                listing.note().shared[path] = (status.st_dev, status.st_ino)
        if goes_too_deep:
            listing.note().warnings.append(too_deep(folder))

    def _item(self, listing: DirRecord, path: str, name: str, parent: int, status: os.stat_result) -> None:
        """Something that is new, or changed."""
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            # Opening each file to learn whether it may be read would double the walk; most modes say it.
            if status.st_mode & 0o444 != 0o444 and not os.access(name, os.R_OK, dir_fd=parent, effective_ids=True):
                _missed(listing, path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
            else:
                listing.entries[path] = file_entry(status)
        elif kind == stat.S_IFDIR:
            listing.entries[path] = directory_entry(status)
        elif kind == stat.S_IFLNK:
            self._link(listing, path, name, parent, status)
        else:
            self._leave_out(listing, path, False, SPECIAL)

    def _leave_out(self, listing: DirRecord, path: str, is_dir: bool, decision: Decision) -> None:
        listing.leaves_out(decision.rule)
        self._on_left_out(path, is_dir, decision)

    def _link(self, listing: DirRecord, path: str, name: str, parent: int, status: os.stat_result) -> None:
        try:
            target = os.readlink(name, dir_fd=parent)
        except OSError as failure:
            _missed(listing, path, failure)
            return
        if stays_inside(path, target):
            listing.entries[path] = Entry(Kind.SYMLINK, 0o777, mtime_s(status), target=target)
            if turns_back(target):
                listing.note().turning_links.append(path)
            return
        self._leave_out(listing, path, False, OUTSIDE)
        listing.note().warnings.append(leads_outside(path))


@dataclass
class _Open:
    """A directory that was listed and is still open; `below` are those in it that are still to be walked.

    `rules_unchanged` says that its scope is the one of the last look, and so are those below.
    """

    path: str
    descriptor: int
    listing: DirRecord
    below: list[str]
    rules_unchanged: bool


def _missed(listing: DirRecord, path: str, failure: OSError) -> None:
    """What vanished or was swapped brings its own event; what cannot be read is named, unless `TryLater` is raised."""
    if failure.errno in _VANISHED:
        return
    safe_open.raise_if_exhausted(failure)
    listing.note().unread.add(path)
    listing.note().warnings.append(unreadable(path, failure))
