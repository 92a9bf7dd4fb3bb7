"""Walks the workspace, and returns what is in it. Events only hint at changes; the scan is the truth.

Directories are opened from their parents' descriptors, names are matched with the rules before `stat`, and excluded
directories are neither walked nor watched. `ScanListener.add_directory` is called before a directory is listed, so a
change between the two is not missed. The results of the last scan save matching the rules again, but are compared with
`stat`. A directory in which nothing changed remains the same object, so later steps do not need to compare it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager

from msgspec import Struct, field

from syncd.core import safe_open
from syncd.core.errors import SyncWarning, WorkspaceError
from syncd.model.directory import EMPTY, Directory, Entries, in_order
from syncd.model.entry import Entry, Kind, has_inner_dotdot, leads_out, stays_inside
from syncd.model.manifest import Manifest
from syncd.scan.exclusions import (
    OUTSIDE,
    OWN_FILE,
    SPECIAL,
    TOO_LONG,
    leads_outside,
    linked_rules,
    too_deep,
    too_long,
    unreadable,
)
from syncd.scan.file_reader import (
    FileIdentity,
    directory_entry,
    file_entry,
    identity_of,
    is_valid,
    lasting_identity_of,
    mtime_s,
)
from syncd.scan.tree_cache import DirRecord, TreeCache
from syncd.selection.ignore_files import RulesOutside, read_ignore_files, read_rules_outside
from syncd.selection.selection import BUILT_IN, Decision, OuterRules, Scope, Selection
from syncd.watch.changes import ScanListener

# Opening a path fails with these if it was removed or swapped since it was listed.
_VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

# As many as the kernel follows (path_resolution(7)).
_MOST_LINKS = 40
# If rules outside change during each of so many reads, their events start another scan.
_MAX_RULE_READS = 3
# If rules change during each of so many listings, their events start another scan.
_MAX_LISTINGS = 3
NO_RULES: Mapping[str, bytes] = {}
OnExcluded = Callable[[str, bool, Decision], None]


class Scan(Struct):
    """The result of a scan. `unread` paths exist but could not be read; `excluded` counts paths by source."""

    identity: FileIdentity = field(default_factory=FileIdentity)  # of the workspace's own directory
    manifest: Manifest = field(default_factory=Manifest)
    warnings: list[SyncWarning] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    excluded: Counter[str] = field(default_factory=Counter)


class Scanner(Struct, eq=False):
    """Scans one workspace with one selection.

    `alone` keeps other tasks from going on, and from asking meanwhile what a scan has found.
    """

    workspace: str
    selection: Selection
    scan_listener: ScanListener = field(default_factory=ScanListener)
    on_excluded: OnExcluded = lambda *_: None
    check: Callable[[], None] = lambda: None
    personal_excludes: str = ""
    link: str = ""  # the path by which the workspace is configured, if it leads through a link
    alone: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    tree: TreeCache = field(default_factory=TreeCache)  # the results of the last scan
    scans: int = 0
    full_scans: int = 0
    full_scan_took_s: float = 0.0  # the last one, with the contents that were read
    _before: TreeCache = field(default_factory=TreeCache)  # the results of the previous scan, during a full scan
    _top: tuple[OuterRules, Scope] | None = None
    _own_inodes: frozenset[tuple[int, int]] = frozenset()
    _is_half_updated: bool = False  # the tree, by a scan that failed
    _is_linked: bool = False  # a file that the scan found changed, by further names

    def scan(self, changed: Collection[str] | None = None) -> Scan:
        """Scan the whole workspace (None), or only the directories with changes since the last scan.

        `changed` must name every such directory. If that is not enough (a rule changed, a directory cannot be opened,
        there are no earlier results), the whole workspace is scanned. The time of a directory, which ignored files
        change too, may be outdated until the next full scan. Raises `WorkspaceError` if the workspace itself cannot be
        read, `TryLater` if the machine is short of descriptors or memory, `Stop` if the process was asked to end.
        """
        self._check_link()
        with self.alone():
            self._is_half_updated, was_half_updated = True, self._is_half_updated
            if was_half_updated or changed is None or not self._scan_directories(changed):
                self._scan_all(TreeCache() if was_half_updated else self.tree)
            self._is_half_updated = False
            self.scans += 1
            return self._result()

    def _check_link(self) -> None:
        """Raise `WorkspaceError` if the link leads to another directory by now."""
        now = os.path.realpath(self.link) if self.link else self.workspace
        if now != self.workspace:
            raise WorkspaceError(
                f"workspace.path leads to {now!r} now, no longer to {self.workspace!r}, so nothing is synced",
                "point the link back, or restart the daemon, which then syncs the other directory",
            )

    def expect(self, manifest: Manifest) -> None:
        """Have the first scan keep the entries of this manifest for files that did not change since."""
        if self.tree.get("") is None:
            self.tree.manifest = manifest.copy()

    def is_excluded(self, path: str, is_dir: bool) -> bool:
        """True if a path is not in the last scan although it exists, through no link, or if the rules exclude it."""
        if self._is_ruled_out(path, is_dir):
            return True
        try:
            with safe_open.DirCursor(safe_open.open_workspace(self.workspace)) as cursor:
                return _exists(cursor, path)
        except WorkspaceError:
            return False  # nothing is there

    def existing_exclusions(self, paths: Iterable[str]) -> set[str]:
        """Return those of these files that the rules of the last scan exclude and that exist, through no link."""
        with safe_open.DirCursor(safe_open.open_workspace(self.workspace)) as cursor:
            return {path for path in paths if self._is_ruled_out(path, is_dir=False) and _exists(cursor, path)}

    def _is_ruled_out(self, path: str, is_dir: bool) -> bool:
        """True if the rules of the last scan exclude the path, or a folder above it."""
        folder, names = "", path.split("/")
        for name in names:
            record = self.tree.get(folder)
            if record is None:
                break
            folder = f"{folder}/{name}" if folder else name
            if not record.scope.decide(name, is_dir or folder.count("/") < len(names) - 1).included:
                return True
        return False

    def rules_unchanged(self, folders: Iterable[str]) -> bool:
        """True if the rules of these folders, with all above them, are those of the last scan when read once more.

        If someone writes a rule and then a file that it excludes, a scan may read the ignore file before and the
        directory after that, and so include the file. A folder that no longer exists has no rules; rules that cannot be
        read count as changed.
        """
        if not self._outer_rules_unchanged():
            return False
        try:
            with safe_open.DirCursor(safe_open.open_workspace(self.workspace)) as cursor:
                return all(self._has_rules_as_scanned(cursor, folder) for folder in sorted(folders))
        except (WorkspaceError, OSError):
            return False

    def _has_rules_as_scanned(self, cursor: safe_open.DirCursor, folder: str) -> bool:
        record = self.tree.get(folder)
        if record is None:
            return True
        try:
            descriptor, _ = cursor.parent_of(f"{folder}/." if folder else ".")
        except OSError:
            return True
        return read_ignore_files(descriptor, record.outer.ignore_files) == record.rules

    def _result(self) -> Scan:
        top = self.tree.get("")
        found = Scan(
            top.identity if top else FileIdentity(),
            self.tree.manifest.copy(),
            excluded=+self.tree.excluded,  # without those that are none by now
        )
        to_check: list[str] = []
        for issues in self.tree.issues.values():
            found.warnings += issues.warnings
            found.unread |= issues.unread
            to_check += issues.links_to_check
        self._exclude_escaping_links(found, to_check)
        return found

    def _exclude_escaping_links(self, found: Scan, to_check: list[str]) -> None:
        """Remove the links that stay inside by their text but lead outside through other links of the snapshot."""

        def link_at(path: str) -> str | None:
            entry = found.manifest.get(path)
            return entry.target if entry is not None and entry.kind is Kind.SYMLINK else None

        outside = [path for path in to_check if leads_out(path, link_at(path) or "", link_at)]
        for path in outside:
            del found.manifest[path]
            found.warnings.append(leads_outside(path))
            self.on_excluded(path, False, OUTSIDE)
        found.excluded += Counter({BUILT_IN: len(outside)})

    def _scan_all(self, known_tree: TreeCache) -> None:
        replaced, self._before, self.tree = self.tree, known_tree, TreeCache()
        self.scan_listener.begin()
        try:
            top = safe_open.open_workspace(self.workspace)
            try:
                outer, known = self._top_scope(top), self._before.get("")
                before = self._before.manifest.top
                current = self._list(top, "", outer, known if known and known.outer is outer else None, before)
            except OSError as failure:
                safe_open.raise_if_exhausted(failure)
                raise WorkspaceError(
                    f"the workspace {self.workspace!r} cannot be read ({failure.strerror})", "let your user read it"
                ) from None
            self.tree.put("", current.record)
            self.tree.manifest = Manifest.of(self._descend(current))
        except BaseException:
            self.tree = replaced  # others still ask what the rules exclude
            raise
        finally:
            self._before = self.tree
        self.full_scans += 1
        self.scan_listener.finish()

    def _top_scope(self, top: int) -> Scope:
        """Return the top directory's scope: the same object while the outer rules are. Closes `top` on error."""
        try:
            outer = self._watched_rules_outside().rules
        except BaseException:
            os.close(top)
            raise
        if self._top is None or self._top[0] != outer:
            self._top, self._own_inodes = (outer, self.selection.root(outer)), outer.own_inodes
        return self._top[1]

    def _watched_rules_outside(self) -> RulesOutside:
        """Read the rules while their directories are watched, or a change before the watch would be missed."""
        read = self._rules_outside()
        links = _links_on(self.link)  # watched in the same way
        for _ in range(_MAX_RULE_READS):
            both = {folder: links[folder] | read.directories.get(folder, frozenset()) for folder in links}
            self.scan_listener.add_rule_files({**read.directories, **both})
            before, read = read, self._rules_outside()
            if read == before:
                break
        return read

    def _rules_outside(self) -> RulesOutside:
        return read_rules_outside(self.workspace, self.selection, self.personal_excludes)

    def _outer_rules_unchanged(self) -> bool:
        try:
            return self._top is not None and self._rules_outside().rules == self._top[0]
        except OSError:
            return False  # the full scan reports the error

    def _scan_directories(self, changed: Collection[str]) -> bool:
        """List these directories again; return False if a full scan is needed."""
        whole = self.tree.get("")
        if whole is None:
            return False
        with safe_open.DirCursor(safe_open.open_workspace(self.workspace)) as cursor:
            top, _ = cursor.parent_of(".")
            if whole.identity != lasting_identity_of(top):
                return False
            if not self._outer_rules_unchanged():
                return False
            self._is_linked = False
            todo = sorted(changed, reverse=True)
            while todo:
                path = todo.pop()
                old = self.tree.get(path)
                if old is None:
                    # It was removed or excluded; if that matters, its parent is in the list too. If its rules could not
                    # be read, only its own watch, which came before they were read, tells that they can be by now.
                    above = os.path.dirname(path)
                    issues = self.tree.issues.get(above)
                    if issues is not None and path in issues.unread:
                        todo.append(above)
                    continue
                try:
                    parent, _ = cursor.parent_of(f"{path}/." if path else ".")
                    new = self._list(os.dup(parent), path, old.outer, old, self.tree.manifest.top.find(path))
                except OSError as failure:
                    if failure.errno in _VANISHED:
                        continue
                    return False
                if new.record.rules != old.rules or new.record.identity != old.identity:
                    os.close(new.descriptor)
                    return False
                self._replace(path, old, new)
        # The other names of a file may be in directories that are not in the list.
        return not self._is_linked

    def _replace(self, path: str, old: DirRecord, new: _OpenDir) -> None:
        manifest = self.tree.manifest
        kept, directories = {}, set(new.record.directories)
        for below in old.directories:
            if below in directories and self._is_as_listed(below, new):
                kept[_name(below)] = manifest.top.find(below)
            else:
                self.tree.drop(below)
        self.tree.put(path, new.record)
        new.below = [below for below in new.below if self.tree.get(below) is None]
        new.made = kept
        time = directory_entry(os.fstat(new.descriptor))
        self.tree.manifest = manifest.with_directory(path, self._descend(new))
        if path:
            self.tree.set_entries({path: time})

    def _is_as_listed(self, path: str, folder: _OpenDir) -> bool:
        """True if the directory is the one that was listed, and not a new one with its name."""
        record = self.tree.get(path)
        try:
            status = os.stat(_name(path), dir_fd=folder.descriptor, follow_symlinks=False)
        except OSError:
            return False
        return record is not None and identity_of(status) == record.identity

    def _descend(self, start: _OpenDir) -> Directory:
        """Walk everything below a listed directory, and return it. Closes all descriptors."""
        stack = [start]
        try:
            while True:
                current = stack[-1]
                if not current.below:
                    os.close(stack.pop().descriptor)
                    directory = current.directory()
                    if not stack:
                        return directory
                    stack[-1].made[_name(current.path)] = directory
                    continue
                self.check()
                path = current.below.pop()
                name = _name(path)
                known = self._before.get(path) if current.rules_unchanged else None
                outer = current.record.scope.enter(name) if known is None else known.outer
                try:
                    descriptor = safe_open.open_directory(name, current.descriptor)
                    below = self._list(descriptor, path, outer, known, current.before.below.get(name, EMPTY))
                except OSError as failure:
                    current.remove(path)
                    _record_failure(current.record, path, failure)
                    self.tree.put(current.path, current.record)
                    continue
                self.tree.put(path, below.record)
                stack.append(below)
        finally:
            for left_open in stack:
                os.close(left_open.descriptor)

    def _list(self, descriptor: int, path: str, outer: Scope, known: DirRecord | None, before: Directory) -> _OpenDir:
        """List an open directory. Closes the descriptor on error. Raises `OSError`.

        `known` is the record of an earlier scan with the same `outer`, `before` is what was there before, if anything.
        """
        try:
            scope, covered_rules = (outer, NO_RULES) if known is None else (known.scope, known.rules)
            for _ in range(_MAX_LISTINGS):
                # The watch comes first, or changes before it would be missed. It needs the rules, as it ignores events
                # of excluded names: if they turn out to be others, the directory is watched and listed again.
                self.scan_listener.add_directory(path, descriptor, scope)
                with os.scandir(descriptor) as found:
                    items = {item.name: item for item in found}
                files = [name for name in outer.ignore_files if name in items]
                rules = read_ignore_files(descriptor, files) if files else NO_RULES
                if rules == covered_rules:
                    break
                scope, covered_rules = outer.with_files(rules) if rules else outer, rules
            else:
                self.scan_listener.add_directory(path, descriptor, scope)
            rules_unchanged = known is not None and known.rules == rules
            identity = identity_of(os.fstat(descriptor)) if path else lasting_identity_of(descriptor)
            record = DirRecord(identity, outer, scope, rules)
            for name in files:
                if name not in rules and items[name].is_symlink():
                    record.own_issues().warnings.append(linked_rules(os.path.join(path, name)))
            previous = before.own.decoded()
            included = previous if rules_unchanged else ()
            entries = self._fill(record, path, items, descriptor, previous=previous, included=included)
        except BaseException:
            os.close(descriptor)
            raise
        own = before.own if entries == previous else None
        return _OpenDir(path, descriptor, record, entries, before, own, list(record.directories), rules_unchanged)

    def _fill(
        self,
        record: DirRecord,
        folder: str,
        items: Mapping[str, os.DirEntry[str]],
        parent: int,
        *,
        previous: Mapping[str, Entry],
        included: Collection[str],
    ) -> dict[str, Entry]:
        """Return the directory's entries, by name, and record what else is to be known of them.

        `previous` are its earlier entries. Of the names in `included` it is known that the rules include them.
        """
        prefix = folder and folder + "/"
        entries: dict[str, Entry] = {}
        goes_too_deep = False
        for name in in_order(items):
            item = items[name]
            path = prefix + name
            try:
                is_dir = item.is_dir(follow_symlinks=False)  # on some file systems, this is a `stat`
                old = previous.get(name)
                if old is not None and (old.kind is Kind.DIRECTORY) is not is_dir:
                    old = None
                if old is None or name not in included:
                    decision = record.scope.decide(name, is_dir)
                    if decision.included and too_long(path):
                        decision = TOO_LONG
                        goes_too_deep = True
                    if not decision.included:
                        self._exclude(record, path, is_dir, decision)
                        continue
                status = item.stat(follow_symlinks=False)
            except OSError as failure:
                if failure.errno == errno.EACCES:
                    raise  # the directory may be listed but not searched
                _record_failure(record, path, failure)
                continue
            if (status.st_dev, status.st_ino) in self._own_inodes:
                self._exclude(record, path, is_dir, OWN_FILE)
                continue
            if stat.S_ISDIR(status.st_mode) is not is_dir:
                continue  # it was swapped after the listing, so the rules decided about another kind: an event follows
            if old is None or not is_valid(old, status):
                old = self._new_entry(record, path, name, parent, status)
                if old is None:
                    continue
                self._is_linked = self._is_linked or (status.st_nlink > 1 and not is_dir)
            entries[name] = old
            if is_dir:
                record.directories.append(path)
        if goes_too_deep:
            record.own_issues().warnings.append(too_deep(folder))
        return entries

    def _new_entry(self, record: DirRecord, path: str, name: str, parent: int, status: os.stat_result) -> Entry | None:
        """Return the entry of a path that is new or changed; None if it is not in the snapshot."""
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            # Opening each file to test if it can be read would double the time of the walk; most modes show it.
            if status.st_mode & 0o444 != 0o444 and not os.access(name, os.R_OK, dir_fd=parent, effective_ids=True):
                _record_failure(record, path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
                return None
            return file_entry(status)
        if kind == stat.S_IFDIR:
            return directory_entry(status)
        if kind == stat.S_IFLNK:
            return self._link_entry(record, path, name, parent, status)
        self._exclude(record, path, False, SPECIAL)
        return None

    def _exclude(self, record: DirRecord, path: str, is_dir: bool, decision: Decision) -> None:
        if decision.rule is not None:
            record.count_excluded(decision.rule)
        self.on_excluded(path, is_dir, decision)

    def _link_entry(self, record: DirRecord, path: str, name: str, parent: int, status: os.stat_result) -> Entry | None:
        try:
            target = os.readlink(name, dir_fd=parent)
        except OSError as failure:
            _record_failure(record, path, failure)
            return None
        if stays_inside(path, target):
            if has_inner_dotdot(target):
                record.own_issues().links_to_check.append(path)
            return Entry(Kind.SYMLINK, 0o777, mtime_s(status), target=target)
        self._exclude(record, path, False, OUTSIDE)
        record.own_issues().warnings.append(leads_outside(path))
        return None


class _OpenDir(Struct):
    """A directory that was listed and is still open.

    `before` is its earlier state, and `own` its entries if they are the same. `below` are the directories in it that
    were not walked yet, `made` those that were. `rules_unchanged`: its scope is that of the last scan, and so are those
    below.
    """

    path: str
    descriptor: int
    record: DirRecord
    entries: dict[str, Entry]
    before: Directory
    own: Entries | None
    below: list[str]
    rules_unchanged: bool
    made: dict[str, Directory] = field(default_factory=dict)

    def remove(self, path: str) -> None:
        """Remove a directory in it that could not be opened."""
        del self.entries[_name(path)]
        self.record.directories.remove(path)
        self.own = None

    def directory(self) -> Directory:
        """Return the directory with everything below it, once all of it was walked."""
        gone = dict.fromkeys(self.before.below, EMPTY)
        return self.before.replaced(self.own or Entries(self.entries), {**gone, **self.made})


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _exists(cursor: safe_open.DirCursor, path: str) -> bool:
    """True if something is at the path, through no link."""
    try:
        parent, name = cursor.parent_of(path)
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return False
    return True


def _record_failure(record: DirRecord, path: str, failure: OSError) -> None:
    """Add a warning about an entry that cannot be read. One that vanished or was swapped causes its own event.

    Raises `TryLater` if the machine is short of descriptors or memory.
    """
    if failure.errno in _VANISHED:
        return
    safe_open.raise_if_exhausted(failure)
    record.own_issues().unread.add(path)
    record.own_issues().warnings.append(unreadable(path, failure))


def _links_on(path: str) -> dict[str, frozenset[str]]:
    """Return the names of the links on the way of an absolute path, by the real directory that each is in."""
    found: dict[str, frozenset[str]] = {}
    folder, names = "/", path.split("/")
    while names and len(found) < _MOST_LINKS:
        name = names.pop(0)
        if name in ("", "."):
            continue
        at = os.path.normpath(os.path.join(folder, name))
        try:
            target = os.readlink(at)
        except OSError:  # no link
            folder = at
            continue
        found[folder] = found.get(folder, frozenset()) | {name}
        names = [*target.split("/"), *names]
        folder = "/" if target.startswith("/") else folder
    return found
