"""Watches the workspace with inotify, so that an idle daemon does not need to scan.

Events are hints; the scan is the truth. The scan calls `add_directory()` for each directory before it lists it, so
changes between the two are not lost, and a new directory gets its watch in the scan that its creation starts. Excluded
directories are not walked, so they are not watched. A directory that a full scan (`begin()` to `finish()`) did not add
loses its watch.

The loop waits for `filenos()`, and `take()` reads the events that the kernel has queued: no thread reads meanwhile. If
the queue overflows while the loop is busy, the next scan is a full one.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Mapping

from msgspec import Struct
from watchdog.observers.inotify_c import InotifyConstants as In

from syncd.core.clock import Clock
from syncd.core.warning import SyncWarning
from syncd.selection.selection import Scope
from syncd.watch import inotify_limits
from syncd.watch.changes import Changes
from syncd.watch.inotify import CHANGES, ENTRIES, REMOVED, RULES, SELF, Event, Inotify
from syncd.watch.scan_listener import ScanListener

logger = logging.getLogger(__name__)

_GIT = b".git"
ALWAYS_RELEVANT = frozenset({_GIT, b".gitignore", b".syncdignore"})
"""Names that are relevant even if they are ignored: they decide which other paths are."""
# After a read, the descriptor is not polled for so long. That collects events, so that a burst costs a third.
_PAUSE_S = 0.01


class _WatchTarget(Struct):
    """A watched directory with its path in the last scan and the scope of its names."""

    path: str
    scope: Scope | None  # None: an inode at two paths, so that events do not identify the path
    scan: int


class InotifyWatch(ScanListener):
    """Watches one workspace through inotify."""

    def __init__(self, root: str, clock: Clock) -> None:
        self._root = os.fsencode(root)
        self._root_name = os.path.basename(self._root)
        self._clock = clock
        self._inotify: Inotify | None = None
        self._no_instance: SyncWarning | None = None
        self._targets: dict[int, _WatchTarget] = {}
        self._parent_wd = -1
        self._parents: set[int] = set()  # watches on all directories above the workspace
        self._rule_names: dict[int, frozenset[bytes]] = {}  # by the watch on a directory with rules outside
        self._failed: dict[str, tuple[int, int]] = {}  # added, but not watched: path to (errno, scan)
        self._scan = 0
        self._in_scan = False
        self._known_at_limit: set[str] | None = None  # paths that had a watch when this scan reached the limit
        self.paused_until_s: float | None = None
        """The monotonic second until which `filenos()` is empty, as events are collected."""

    def open(self) -> None:
        """Begin to watch; if inotify gives no instance, nothing is watched and `warnings()` says why."""
        self.close()
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._no_instance = inotify_limits.no_instance(error)
        else:
            self._no_instance = None

    def close(self) -> None:
        """Remove all watches. It may be called again; `open()` starts again."""
        inotify, self._inotify = self._inotify, None
        if inotify is not None:
            inotify.close()
        self._targets.clear()
        self._failed.clear()
        self._parents.clear()
        self._rule_names.clear()
        self._parent_wd = -1
        self.paused_until_s = None

    def filenos(self) -> list[int]:
        """Return the descriptors to poll."""
        if self._inotify is None or self.paused_until_s is not None:
            return []
        return self._inotify.filenos()

    def take(self) -> Changes:
        """Return the changes since the last call, which need a rescan if events were lost."""
        self.paused_until_s = None
        if self._inotify is None:
            return Changes()
        try:
            events = self._inotify.read()
            if events:
                self.paused_until_s = self._clock.monotonic_s() + _PAUSE_S
            return self._changes(events)
        except Exception:  # the loop must go on, and the next full scan finds what was lost
            logger.exception("file system events could not be read")
            self.close()
            return Changes(rescan=True)

    def begin(self) -> None:
        """Begin a full scan; open the watch if it is not, or failed."""
        if self._inotify is None:
            self.open()
        self._scan += 1
        self._in_scan = True
        self._known_at_limit = None
        self._watch_parents()

    def add_rule_files(self, directories: Mapping[str, frozenset[str]]) -> None:
        """Watch directories outside of the workspace for the names of files with rules that apply in it.

        It never raises and never warns: a change that is missed is found by the next scan, which reads all of them.
        """
        if self._inotify is None:
            return
        found: dict[int, frozenset[bytes]] = {}
        for folder, names in directories.items():
            try:
                found[self._inotify.add(os.fsencode(folder), RULES)] = frozenset(map(os.fsencode, names))
            except OSError as error:
                logger.debug("%r, which has rules for the workspace, is not watched: %s", folder, error)
        stale = self._rule_names.keys() - found.keys() - self._parents - self._targets.keys()
        self._rule_names = found
        for wd in stale:
            self._inotify.remove(wd)

    def add_directory(self, path: str, fd: int, scope: Scope) -> None:
        """Watch the directory open at `fd` with this `path` ("" is the workspace). Call it before listing.

        It is called between `begin()` and `finish()`, or at any time for a single directory. `scope` decides which of
        its events are relevant. It never raises: directories without a watch are in `warnings()`.
        """
        if self._inotify is None:
            self._failed[path] = (0, self._scan)
            return
        if self._is_skipped(path):
            self._failed[path] = (errno.ENOSPC, self._scan)
            return
        try:
            self._register(self._add(self._inotify, path, fd), path, scope)
        except OSError as error:
            self._record_failure(path, error)
            return
        if self._failed:
            self._failed.pop(path, None)

    def finish(self) -> None:
        """End a full scan: directories that it did not add are no longer watched."""
        self.abort()
        self._failed = {path: failure for path, failure in self._failed.items() if failure[1] == self._scan}
        for wd in [wd for wd, target in self._targets.items() if target.scan != self._scan]:
            del self._targets[wd]
            if self._inotify is not None:
                self._inotify.remove(wd)

    def abort(self) -> None:
        """End a scan that failed: all watches stay."""
        self._in_scan = False
        self._known_at_limit = None

    def warnings(self) -> tuple[SyncWarning, ...]:
        """Return warnings about directories that cannot be watched now, with the reasons."""
        if self._no_instance is not None:
            return (self._no_instance,)
        if not self._failed:
            return ()
        missed = {path: code for path, (code, _) in self._failed.items()}
        return inotify_limits.unwatched(missed, len(missed) + len(self._targets))

    @property
    def needs_polling(self) -> bool:
        """True if some or all of the workspace must be polled, because no event will come."""
        return bool(self._failed) or self._inotify is None

    # -- watches

    def _add(self, inotify: Inotify, path: str, fd: int) -> int:
        mask = CHANGES if path else CHANGES | SELF
        try:
            # Through the descriptor: the path cannot be swapped meanwhile, nor be too long.
            return inotify.add(b"/proc/self/fd/%d" % fd, mask)
        except FileNotFoundError:  # no /proc here
            return inotify.add(os.path.join(self._root, os.fsencode(path)), mask | In.IN_DONT_FOLLOW)

    def _register(self, wd: int, path: str, scope: Scope) -> None:
        target = self._targets.get(wd)
        if target is None:
            self._targets[wd] = _WatchTarget(path, scope, self._scan)
            return
        twice = self._in_scan and target.scan == self._scan and target.path != path
        target.path = path
        target.scope = None if twice else scope
        target.scan = self._scan

    def _record_failure(self, path: str, error: OSError) -> None:
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and path:
            return  # it was removed since it was opened: its parent's watch reports that
        self._failed[path] = (error.errno or 0, self._scan)
        if error.errno == errno.ENOSPC and self._known_at_limit is None:
            self._known_at_limit = {target.path for target in self._targets.values()}

    def _is_skipped(self, path: str) -> bool:
        """True if the limit was reached and the path had no watch: 50,000 more failing calls would show nothing new."""
        return self._known_at_limit is not None and path not in self._known_at_limit

    def _watch_parents(self) -> None:
        """Watch all directories above the workspace: it may be moved away with one of them, and put back."""
        if self._inotify is None:
            return
        found: dict[bytes, int] = {}
        parent, *further = _parents(self._root)
        # Other changes in the upper directories do not matter, and a home directory has many.
        for folder, mask in ((parent, SELF | ENTRIES), *((folder, SELF) for folder in further)):
            try:
                found[folder] = self._inotify.add(folder, mask)
            except OSError as error:
                logger.debug("%r, which is above the workspace, is not watched: %s", folder, error)
        stale = self._parents.difference(found.values(), self._targets, self._rule_names)
        self._parents, self._parent_wd = set(found.values()), found.get(parent, -1)
        for wd in stale:
            self._inotify.remove(wd)

    # -- events

    def _changes(self, events: Iterable[Event]) -> Changes:
        """Return the directories and files of the events, without excluded names."""
        targets = self._targets
        dirty: set[str] = set()
        written: set[str] = set()
        rescan = False
        for wd, mask, name in events:
            target = targets.get(wd)
            if target is None:
                # Else it is a late event of a watch that was removed.
                rescan = rescan or bool(mask & In.IN_Q_OVERFLOW) or self._is_outside(wd, mask, name)
            elif not name:
                if mask & In.IN_IGNORED:
                    del targets[wd]
                dirty.add(target.path)
                if mask & REMOVED:
                    rescan = rescan or not target.path
                    # Its parent too, as another directory may have its name by now, and its inode number.
                    dirty.add(os.path.dirname(target.path))
            elif target.scope is None:
                rescan = True
            elif target.path in dirty or _is_relevant(target.scope, name, mask):
                dirty.add(target.path)
                if mask & In.IN_CLOSE_WRITE:
                    written.add(os.path.join(target.path, os.fsdecode(name)))
        return Changes(frozenset(dirty), frozenset(written), rescan)

    def _is_outside(self, wd: int, mask: int, name: bytes) -> bool:
        """True if the workspace itself may have moved, or the rules outside of it may have changed."""
        is_parent = wd == self._parent_wd and name in (self._root_name, _GIT)  # a new repository around it has rules
        return is_parent or (wd in self._parents and bool(mask & SELF)) or self._is_of_rules(wd, mask, name)

    def _is_of_rules(self, wd: int, mask: int, name: bytes) -> bool:
        names = self._rule_names.get(wd)
        return names is not None and (name in names or bool(mask & In.IN_IGNORED))


def _parents(path: bytes) -> list[bytes]:
    """Return the directories above a path, the nearest first; "/" only if it is the nearest, as it cannot be moved."""
    above = [os.path.dirname(path)]
    while os.path.dirname(above[-1]) != b"/" and above[-1] != b"/":
        above.append(os.path.dirname(above[-1]))
    return above


def _is_relevant(scope: Scope, name: bytes, mask: int) -> bool:
    return name in ALWAYS_RELEVANT or scope.decide(os.fsdecode(name), bool(mask & In.IN_ISDIR)).included
