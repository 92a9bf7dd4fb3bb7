"""Hears that something in the workspace changed, so that an idle daemon need not look.

Events are hints; the scan is the truth. The scan calls `cover()` for each directory before it lists it, so what comes
between is not lost, and a new directory gets its watch from the scan that its creation starts. What selection leaves
out is never walked, hence never watched. What one whole scan (`begin()` to `finish()`) did not cover loses its watch.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterable, Mapping

from watchdog.observers.inotify_c import InotifyConstants as In

from syncd.core.warning import SyncWarning
from syncd.selection.selection import Scope
from syncd.watch import inotify_limits
from syncd.watch.changes import ChangeQueue, Changes, RescanReason, WakeCallback
from syncd.watch.inotify import CHANGES, GONE, NEIGHBOURS, RULES, SELF, WRITES, Event, Inotify

logger = logging.getLogger(__name__)

_GIT = b".git"
ALWAYS_TELL = frozenset({_GIT, b".gitignore", b".syncdignore"})
"""Names that count even where they are themselves ignored: they decide what else is."""
# Each takes one of the user's watches, which directories need more.
_MOST_FILES = 1024


class _WatchedDir:
    """A watched directory: where the last scan found it, and which names of it belong. Or a file with several names."""

    __slots__ = ("path", "scan", "scope")

    def __init__(self, path: str, scope: Scope | None, scan: int) -> None:
        self.path = path
        self.scope = scope  # None: a file, or an inode at two paths, so that no event tells which
        self.scan = scan


class _Heard:
    """What one read of events says, as `Changes` have it."""

    __slots__ = ("dirty", "unlinked", "written")

    def __init__(self) -> None:
        self.dirty: set[str] = set()
        self.written: set[str] = set()
        self.unlinked: set[str] = set()


class InotifyWatch:
    """Watches one workspace through inotify. All but its reader's thread is the caller's one thread."""

    def __init__(self, root: str, wake: WakeCallback) -> None:
        self._root = os.fsencode(root)
        self._root_name = os.path.basename(self._root)
        self._change_queue = ChangeQueue(wake)
        self._lock = threading.Lock()  # between the reader and the caller, for the places
        self._inotify: Inotify | None = None
        self._no_instance: SyncWarning | None = None
        self._places: dict[int, _WatchedDir] = {}
        self._parent_wd = -1
        self._above: set[int] = set()  # watches on the directories that the workspace is in, near and far
        self._rule_names: dict[int, frozenset[bytes]] = {}  # by the watch on a directory with rules from outside
        self._missed: dict[str, tuple[int, int]] = {}  # covered, but not watched: path to (errno, scan)
        self._scan = 0
        self._in_scan = False
        self._files = 0  # watched in this scan, and by looks at single directories since
        self._known: set[str] | None = None  # paths that had a watch when the limit was met in this scan

    def open(self) -> None:
        """Starts hearing; where inotify gives no instance, nothing is watched and `warnings()` says why."""
        self.close()
        inotify = None
        try:
            inotify = Inotify(self._deliver, self._lost)
            inotify.start()
        except (OSError, RuntimeError) as error:  # RuntimeError: no new thread
            if inotify is not None:
                inotify.shut()
            cause = error if isinstance(error, OSError) else OSError(errno.EAGAIN, str(error))
            self._no_instance = inotify_limits.no_instance(cause)
            return
        self._no_instance = None
        self._inotify = inotify

    def close(self) -> None:
        """Ends the thread and drops all watches. May be called again; `open()` starts anew."""
        inotify, self._inotify = self._inotify, None
        if inotify is not None:
            inotify.shut()
        self._places.clear()
        self._missed.clear()
        self._above.clear()
        self._rule_names.clear()
        self._parent_wd = -1

    def begin(self) -> None:
        """Opens a scan of the whole workspace; starts hearing (again) where that failed or ended."""
        if not self.alive():
            self.open()
        self._scan += 1
        self._in_scan = True
        self._known = None
        self._files = 0
        self._watch_above()

    def cover_rules(self, places: Mapping[str, frozenset[str]]) -> None:
        """Watches directories outside of the workspace for some names only: rules that count in it.

        Never raises, and complains of nothing: what is not heard is seen by the next look, which reads all of them.
        """
        if self._inotify is None:
            return
        found: dict[int, frozenset[bytes]] = {}
        with self._lock:
            for folder, names in places.items():
                try:
                    found[self._inotify.add(os.fsencode(folder), RULES)] = frozenset(map(os.fsencode, names))
                except OSError as error:
                    logger.debug("a directory with rules for the workspace is not watched: %s", error)
            gone = self._rule_names.keys() - found.keys() - self._above - self._places.keys()
            self._rule_names = found
        for wd in gone:
            self._inotify.remove(wd)

    def cover(self, path: str, fd: int, scope: Scope) -> None:
        """Watches the directory open at `fd`, found at `path` ("" the workspace). Call it before listing.

        Between `begin()` and `finish()` or, for a directory read by itself, at any time. `scope` decides which of its
        events count. Never raises: what cannot be watched is in `warnings()` and `unwatched()`.
        """
        if self._inotify is None:
            self._missed[path] = (0, self._scan)
            return
        if self._is_passed_over(path):
            self._missed[path] = (errno.ENOSPC, self._scan)
            return
        try:
            with self._lock:  # until the place is known, the reader waits: no event is of an unknown directory
                wd = self._add(self._inotify, path, fd)
                self._settle(wd, path, scope)
        except OSError as error:
            self._miss(path, error)
            return
        if self._missed:
            self._missed.pop(path, None)

    def cover_file(self, path: str, name: str, parent: int) -> None:
        """Watches a file itself: written by a name that is ignored, or elsewhere, no directory of ours tells of it.

        Never raises, and complains of nothing: what is not heard is seen when all is looked at.
        """
        if self._inotify is None or self._files >= _MOST_FILES:
            return
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except OSError:
            return
        try:
            with self._lock:
                wd = self._inotify.add_file(b"/proc/self/fd/%d" % fd)
                place = self._places.setdefault(wd, _WatchedDir(path, None, self._scan - 1))
                self._files += place.scan != self._scan
                place.path, place.scan = path, self._scan
        except OSError as error:
            logger.debug("a file with several names is not watched: %s", error)
        finally:
            os.close(fd)

    def finish(self) -> None:
        """Ends a scan that saw everything: what it did not cover is no longer watched."""
        self._in_scan = False
        self._known = None
        self._missed = {path: miss for path, miss in self._missed.items() if miss[1] == self._scan}
        with self._lock:
            stale = [wd for wd, place in self._places.items() if place.scan != self._scan]
            for wd in stale:
                del self._places[wd]
        if self._inotify is not None:
            for wd in stale:
                self._inotify.remove(wd)

    def abandon(self) -> None:
        """Ends a scan that failed: all that was watched stays so."""
        self._in_scan = False
        self._known = None

    def take(self) -> Changes:
        """What happened since the last call. Drain the strobe's pipe before, or a strobe between is lost."""
        return self._change_queue.take()

    def warnings(self) -> tuple[SyncWarning, ...]:
        """What cannot be watched now, and why."""
        if self._no_instance is not None:
            return (self._no_instance,)
        if not self._missed:
            return ()
        missed = {path: code for path, (code, _) in self._missed.items()}
        return inotify_limits.unwatched(missed, len(missed) + len(self._places))

    def unwatched(self) -> int:
        """How many covered directories have no watch."""
        return len(self._missed)

    @property
    def needs_polling(self) -> bool:
        """Whether some or all of the workspace must be rescanned on a short interval, as no event will come."""
        return bool(self._missed) or not self.alive()

    def alive(self) -> bool:
        """Whether events are heard: the thread lives and its descriptor is open."""
        return self._inotify is not None and self._inotify.hears()

    # -- the caller's side

    def _add(self, inotify: Inotify, path: str, fd: int) -> int:
        mask = CHANGES if path else CHANGES | SELF
        try:
            # Through the descriptor: no path to race with, and none too long.
            return inotify.add(b"/proc/self/fd/%d" % fd, mask)
        except FileNotFoundError:  # no /proc here
            return inotify.add(os.path.join(self._root, os.fsencode(path)), mask | In.IN_DONT_FOLLOW)

    def _settle(self, wd: int, path: str, scope: Scope) -> None:
        place = self._places.get(wd)
        if place is None:
            self._places[wd] = _WatchedDir(path, scope, self._scan)
            return
        twice = self._in_scan and place.scan == self._scan and place.path != path
        place.path = path
        place.scope = None if twice else scope
        place.scan = self._scan

    def _miss(self, path: str, error: OSError) -> None:
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and path:
            return  # gone since it was opened: its parent's watch tells
        self._missed[path] = (error.errno or 0, self._scan)
        if error.errno == errno.ENOSPC and self._known is None:
            self._known = {place.path for place in self._places.values()}

    def _is_passed_over(self, path: str) -> bool:
        """At the limit, 50,000 failing system calls tell nothing new: one a scan does, and heals once there is room."""
        return self._known is not None and path not in self._known

    def _watch_above(self) -> None:
        """So that it is heard when the workspace is put back, or goes away with a directory that it is in."""
        if self._inotify is None:
            return
        found: dict[bytes, int] = {}
        parent, *further = _above(self._root)
        with self._lock:
            # What goes on in those further up is no news, and in a home directory much does.
            for folder, mask in ((parent, SELF | NEIGHBOURS), *((folder, SELF) for folder in further)):
                try:
                    found[folder] = self._inotify.add(folder, mask)
                except OSError as error:
                    logger.debug("a directory above the workspace is not watched: %s", error)
            gone = self._above.difference(found.values(), self._places, self._rule_names)
            self._above, self._parent_wd = set(found.values()), found.get(parent, -1)
        for wd in gone:
            self._inotify.remove(wd)

    # -- the reader's side

    def _deliver(self, events: Iterable[Event]) -> None:
        heard = _Heard()
        rescan_reason: RescanReason | None = None
        try:
            with self._lock:
                rescan_reason = self._sort(events, heard)
        except Exception:  # an error here must not end the reader: a deaf daemon looks like a quiet workspace
            logger.exception("an event could not be understood")
            rescan_reason = RescanReason.FAULT
        self._change_queue.put(heard.dirty, rescan_reason, written=heard.written, unlinked=heard.unlinked)

    def _sort(self, events: Iterable[Event], heard: _Heard) -> RescanReason | None:
        """Adds the directories and files that events are of to `heard`; events of names left out vanish here."""
        places, dirty = self._places, heard.dirty
        worst = 0
        for wd, mask, _cookie, name in events:
            place = places.get(wd)
            if place is None:
                if mask & In.IN_Q_OVERFLOW:
                    worst = max(worst, RescanReason.OVERFLOW)
                elif wd in self._above and (mask & SELF or (wd == self._parent_wd and name == self._root_name)):
                    worst = max(worst, RescanReason.ROOT)
                elif self._is_of_rules(wd, mask, name):
                    worst = max(worst, RescanReason.COARSE)
                continue  # else the last words of a watch that was removed
            if not name:
                if not mask & GONE:
                    self._hear_itself(place, mask, heard)
                    continue
                if mask & In.IN_IGNORED:
                    del places[wd]
                if place.path:
                    # Both: another directory may have its name by now, and its inode number besides.
                    dirty.update((place.path, os.path.dirname(place.path)))
                else:
                    worst = max(worst, RescanReason.ROOT)
            elif place.scope is None:
                worst = max(worst, RescanReason.COARSE)
            elif place.path in dirty or _counts(place.scope, name, mask):
                if place.path not in dirty and mask & WRITES and self._is_unlinked(place.path, name):
                    heard.unlinked.add(place.path)
                    continue
                dirty.add(place.path)
                if mask & In.IN_CLOSE_WRITE:
                    heard.written.add(_joined(place.path, name))
        return RescanReason(worst) if worst else None

    def _is_of_rules(self, wd: int, mask: int, name: bytes) -> bool:
        """Whether rules from outside of the workspace may have changed: also by a repository made around it."""
        if wd == self._parent_wd and name == _GIT:
            return True
        names = self._rule_names.get(wd)
        return names is not None and (name in names or bool(mask & In.IN_IGNORED))

    def _hear_itself(self, place: _WatchedDir, mask: int, heard: _Heard) -> None:
        """An event of a directory, or of a file with several names, by no name."""
        if place.scope is None and self._is_unlinked("", os.fsencode(place.path)):
            heard.unlinked.add(os.path.dirname(place.path))
            return
        heard.dirty.add(place.path)
        if mask & In.IN_CLOSE_WRITE:
            heard.written.add(place.path)

    def _is_unlinked(self, folder: str, name: bytes) -> bool:
        """Whether the name is gone, of which another event has told.

        What is written through it is in the workspace only if the file has another name. That is rare, and programs
        that write to files without a name are not: a look for each of these would be looks without end.
        """
        try:
            os.lstat(os.path.join(self._root, os.fsencode(folder), name))
        except OSError as error:
            return error.errno == errno.ENOENT
        return False

    def _lost(self) -> None:
        self._change_queue.put(rescan_reason=RescanReason.DEAF)


def _above(path: bytes) -> list[bytes]:
    """The directories that a path is in, the nearest first; "/" only if it is the nearest, for it goes nowhere."""
    above = [os.path.dirname(path)]
    while os.path.dirname(above[-1]) != b"/" and above[-1] != b"/":
        above.append(os.path.dirname(above[-1]))
    return above


def _joined(folder: str, name: bytes) -> str:
    """The path of a name in a directory of the workspace."""
    return f"{folder}/{os.fsdecode(name)}" if folder else os.fsdecode(name)


def _counts(scope: Scope, name: bytes, mask: int) -> bool:
    return name in ALWAYS_TELL or scope.decide(os.fsdecode(name), bool(mask & In.IN_ISDIR)).included
