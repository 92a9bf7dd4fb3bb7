"""Watches the workspace with inotify, so that an idle daemon does not need to scan.

Events are hints; the scan is the truth. The scan calls `add_directory()` for each directory before it lists it, so
changes between the two are not lost, and a new directory gets its watch in the scan that its creation starts. Excluded
directories are not walked, so they are not watched. A directory that a full scan (`begin()` to `finish()`) did not add
loses its watch.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterable, Mapping

from msgspec import Struct, field
from watchdog.observers.inotify_c import InotifyConstants as In

from syncd.core.warning import SyncWarning
from syncd.selection.selection import Scope
from syncd.watch import inotify_limits
from syncd.watch.changes import ChangeQueue, Changes, RescanReason, WakeCallback
from syncd.watch.inotify import CHANGES, ENTRIES, REMOVED, RULES, SELF, WRITES, Event, Inotify

logger = logging.getLogger(__name__)

_GIT = b".git"
ALWAYS_RELEVANT = frozenset({_GIT, b".gitignore", b".syncdignore"})
"""Names that are relevant even if they are ignored: they decide which other paths are."""
# Each file uses one of the user's watches, which directories need more.
_MAX_FILES = 1024


class _WatchTarget(Struct):
    """A watched directory with its path in the last scan and the scope of its names; or a file with several names."""

    path: str
    scope: Scope | None  # None: a file, or an inode at two paths, so that events do not identify the path
    scan: int


class _EventSummary(Struct):
    """The changes in the events of one read, as in `Changes`."""

    dirty: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    unlinked: set[str] = field(default_factory=set)


class InotifyWatch:
    """Watches one workspace through inotify. All methods are called in one thread, except by the reader's thread."""

    def __init__(self, root: str, wake: WakeCallback) -> None:
        self._root = os.fsencode(root)
        self._root_name = os.path.basename(self._root)
        self._change_queue = ChangeQueue(wake)
        self._lock = threading.Lock()  # protects the targets, which the reader and the caller use
        self._inotify: Inotify | None = None
        self._no_instance: SyncWarning | None = None
        self._targets: dict[int, _WatchTarget] = {}
        self._parent_wd = -1
        self._parents: set[int] = set()  # watches on all directories above the workspace
        self._rule_names: dict[int, frozenset[bytes]] = {}  # by the watch on a directory with rules outside
        self._failed: dict[str, tuple[int, int]] = {}  # added, but not watched: path to (errno, scan)
        self._scan = 0
        self._in_scan = False
        self._files = 0  # files watched in this scan, and in partial scans since
        self._known_at_limit: set[str] | None = None  # paths that had a watch when this scan reached the limit

    def open(self) -> None:
        """Start the reader; if inotify gives no instance, nothing is watched and `warnings()` says why."""
        self.close()
        inotify = None
        try:
            inotify = Inotify(self._deliver, self._reader_died)
            inotify.start()
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread could be started
            if inotify is not None:
                inotify.shut_down()
            cause = error if isinstance(error, OSError) else OSError(errno.EAGAIN, str(error))
            self._no_instance = inotify_limits.no_instance(cause)
            return
        self._no_instance = None
        self._inotify = inotify

    def close(self) -> None:
        """End the thread and remove all watches. It may be called again; `open()` starts again."""
        inotify, self._inotify = self._inotify, None
        if inotify is not None:
            inotify.shut_down()
        self._targets.clear()
        self._failed.clear()
        self._parents.clear()
        self._rule_names.clear()
        self._parent_wd = -1

    def begin(self) -> None:
        """Begin a full scan; start the reader again if that failed or it ended."""
        if not self.alive():
            self.open()
        self._scan += 1
        self._in_scan = True
        self._known_at_limit = None
        self._files = 0
        self._watch_parents()

    def add_rule_files(self, directories: Mapping[str, frozenset[str]]) -> None:
        """Watch directories outside of the workspace for the names of files with rules that apply in it.

        It never raises and never warns: a change that is missed is found by the next scan, which reads all of them.
        """
        if self._inotify is None:
            return
        found: dict[int, frozenset[bytes]] = {}
        with self._lock:
            for folder, names in directories.items():
                try:
                    found[self._inotify.add(os.fsencode(folder), RULES)] = frozenset(map(os.fsencode, names))
                except OSError as error:
                    logger.debug("a directory with rules for the workspace is not watched: %s", error)
            stale = self._rule_names.keys() - found.keys() - self._parents - self._targets.keys()
            self._rule_names = found
        for wd in stale:
            self._inotify.remove(wd)

    def add_directory(self, path: str, fd: int, scope: Scope) -> None:
        """Watch the directory open at `fd` with this `path` ("" is the workspace). Call it before listing.

        It is called between `begin()` and `finish()`, or at any time for a single directory. `scope` decides which of
        its events are relevant. It never raises: directories without a watch are in `warnings()` and `unwatched()`.
        """
        if self._inotify is None:
            self._failed[path] = (0, self._scan)
            return
        if self._is_skipped(path):
            self._failed[path] = (errno.ENOSPC, self._scan)
            return
        try:
            with self._lock:  # the reader waits until the target is registered, so it finds each event's directory
                wd = self._add(self._inotify, path, fd)
                self._register(wd, path, scope)
        except OSError as error:
            self._record_failure(path, error)
            return
        if self._failed:
            self._failed.pop(path, None)

    def add_file(self, path: str, name: str, parent: int) -> None:
        """Watch a file itself: a write through an ignored name, or one outside, has no event in a watched directory.

        It never raises and never warns: a change that is missed is found by the next full scan.
        """
        if self._inotify is None or self._files >= _MAX_FILES:
            return
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except OSError:
            return
        try:
            with self._lock:
                wd = self._inotify.add_file(b"/proc/self/fd/%d" % fd)
                target = self._targets.setdefault(wd, _WatchTarget(path, None, self._scan - 1))
                self._files += target.scan != self._scan
                target.path, target.scan = path, self._scan
        except OSError as error:
            logger.debug("a file with several names is not watched: %s", error)
        finally:
            os.close(fd)

    def finish(self) -> None:
        """End a full scan: directories and files that it did not add are no longer watched."""
        self._in_scan = False
        self._known_at_limit = None
        self._failed = {path: failure for path, failure in self._failed.items() if failure[1] == self._scan}
        with self._lock:
            stale = [wd for wd, target in self._targets.items() if target.scan != self._scan]
            for wd in stale:
                del self._targets[wd]
        if self._inotify is not None:
            for wd in stale:
                self._inotify.remove(wd)

    def abort(self) -> None:
        """End a scan that failed: all watches stay."""
        self._in_scan = False
        self._known_at_limit = None

    def take(self) -> Changes:
        """Return the changes since the last call. Drain the wake-up pipe before, or a wake-up may be lost."""
        return self._change_queue.take()

    def warnings(self) -> tuple[SyncWarning, ...]:
        """Return warnings about directories that cannot be watched now, with the reasons."""
        if self._no_instance is not None:
            return (self._no_instance,)
        if not self._failed:
            return ()
        missed = {path: code for path, (code, _) in self._failed.items()}
        return inotify_limits.unwatched(missed, len(missed) + len(self._targets))

    def unwatched(self) -> int:
        """Return the number of directories that have no watch."""
        return len(self._failed)

    @property
    def needs_polling(self) -> bool:
        """True if some or all of the workspace must be polled, because no event will come."""
        return bool(self._failed) or not self.alive()

    def alive(self) -> bool:
        """True if events are received: the thread runs and its descriptor is open."""
        return self._inotify is not None and self._inotify.is_listening()

    # -- the caller's side

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
        with self._lock:
            # Other changes in the upper directories do not matter, and a home directory has many.
            for folder, mask in ((parent, SELF | ENTRIES), *((folder, SELF) for folder in further)):
                try:
                    found[folder] = self._inotify.add(folder, mask)
                except OSError as error:
                    logger.debug("a directory above the workspace is not watched: %s", error)
            stale = self._parents.difference(found.values(), self._targets, self._rule_names)
            self._parents, self._parent_wd = set(found.values()), found.get(parent, -1)
        for wd in stale:
            self._inotify.remove(wd)

    # -- the reader's side

    def _deliver(self, events: Iterable[Event]) -> None:
        summary = _EventSummary()
        rescan_reason: RescanReason | None = None
        try:
            with self._lock:
                rescan_reason = self._classify(events, summary)
        except Exception:  # an error here must not end the reader: changes would no longer be noticed
            logger.exception("a file system event could not be processed")
            rescan_reason = RescanReason.ERROR
        self._change_queue.put(summary.dirty, rescan_reason, written=summary.written, unlinked=summary.unlinked)

    def _classify(self, events: Iterable[Event], summary: _EventSummary) -> RescanReason | None:
        """Add the directories and files of the events to `summary`, without excluded names; return a rescan reason."""
        targets, dirty = self._targets, summary.dirty
        worst = 0
        for wd, mask, _cookie, name in events:
            target = targets.get(wd)
            if target is None:
                if mask & In.IN_Q_OVERFLOW:
                    worst = max(worst, RescanReason.OVERFLOW)
                elif wd in self._parents and (mask & SELF or (wd == self._parent_wd and name == self._root_name)):
                    worst = max(worst, RescanReason.WORKSPACE)
                elif self._is_of_rules(wd, mask, name):
                    worst = max(worst, RescanReason.UNKNOWN_DIRECTORY)
                continue  # else it is a late event of a watch that was removed
            if not name:
                if not mask & REMOVED:
                    self._add_unnamed(target, mask, summary)
                    continue
                if mask & In.IN_IGNORED:
                    del targets[wd]
                if target.path:
                    # Both, as another directory may have its name by now, and its inode number too.
                    dirty.update((target.path, os.path.dirname(target.path)))
                else:
                    worst = max(worst, RescanReason.WORKSPACE)
            elif target.scope is None:
                worst = max(worst, RescanReason.UNKNOWN_DIRECTORY)
            elif target.path in dirty or _is_relevant(target.scope, name, mask):
                if target.path not in dirty and mask & WRITES and self._is_unlinked(target.path, name):
                    summary.unlinked.add(target.path)
                    continue
                dirty.add(target.path)
                if mask & In.IN_CLOSE_WRITE:
                    summary.written.add(_join(target.path, name))
        return RescanReason(worst) if worst else None

    def _is_of_rules(self, wd: int, mask: int, name: bytes) -> bool:
        """True if rules outside of the workspace may have changed, also by a new repository around it."""
        if wd == self._parent_wd and name == _GIT:
            return True
        names = self._rule_names.get(wd)
        return names is not None and (name in names or bool(mask & In.IN_IGNORED))

    def _add_unnamed(self, target: _WatchTarget, mask: int, summary: _EventSummary) -> None:
        """Add an event without a name: it is about a directory itself, or a file with several names."""
        if target.scope is None and self._is_unlinked("", os.fsencode(target.path)):
            summary.unlinked.add(os.path.dirname(target.path))
            return
        summary.dirty.add(target.path)
        if mask & In.IN_CLOSE_WRITE:
            summary.written.add(target.path)

    def _is_unlinked(self, folder: str, name: bytes) -> bool:
        """True if the name no longer exists; another event has reported its removal.

        A write through it changes the workspace only if the file has another name there. That is rare, but programs
        that write to files without a name are common: a scan for each write would mean scans without end.
        """
        try:
            os.lstat(os.path.join(self._root, os.fsencode(folder), name))
        except OSError as error:
            return error.errno == errno.ENOENT
        return False

    def _reader_died(self) -> None:
        self._change_queue.put(rescan_reason=RescanReason.READER_DIED)


def _parents(path: bytes) -> list[bytes]:
    """Return the directories above a path, the nearest first; "/" only if it is the nearest, as it cannot be moved."""
    above = [os.path.dirname(path)]
    while os.path.dirname(above[-1]) != b"/" and above[-1] != b"/":
        above.append(os.path.dirname(above[-1]))
    return above


def _join(folder: str, name: bytes) -> str:
    """Return the path of a name in a directory of the workspace."""
    return f"{folder}/{os.fsdecode(name)}" if folder else os.fsdecode(name)


def _is_relevant(scope: Scope, name: bytes, mask: int) -> bool:
    return name in ALWAYS_RELEVANT or scope.decide(os.fsdecode(name), bool(mask & In.IN_ISDIR)).included
