"""Watches the workspace with inotify, so that an idle daemon does not need to scan.

Events are hints; the scan is the truth. The scan calls `add_directory()` for each directory before it lists it, so
changes between the two are not lost, and a new directory gets its watch in the scan that its creation starts. Excluded
directories are not walked, so they are not watched. A directory that a full scan (`begin()` to `finish()`) did not add
loses its watch.

The loop waits for `filenos()`, and `take()` reads the events that the kernel has queued: no thread reads meanwhile. If
the queue overflows while the loop is busy, the next scan is a full one. What cannot be watched is polled.

watchdog's observer watches whole trees and cannot exclude a part, and its `InotifyFD` has a thread. So only its calls
of the C library and its constants are used here. The watch itself maps watch descriptors to paths, which saves two
thirds of the memory and most of the time for each event.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import shlex
import struct
from collections.abc import Iterable, Mapping
from math import inf

from msgspec import Struct
from watchdog.observers import inotify_c
from watchdog.observers.inotify_c import InotifyConstants as In

from syncd.core.clock import Clock
from syncd.core.errors import SyncWarning
from syncd.core.text import shown_path
from syncd.selection.selection import RULE_FILES, Scope
from syncd.watch.changes import Changes, ScanListener
from syncd.watch.mounts import shared_parts, shared_warning

# -- the kernel's limits: `fs.inotify.*` applies to the machine, `user.*` to a user namespace (a container), and the
# smaller one is in force. Both count for each user, so other programs use them up too (inotify(7), namespaces(7)).

_WATCHES = ("fs.inotify.max_user_watches", "user.max_inotify_watches")
_INSTANCES = ("fs.inotify.max_user_instances", "user.max_inotify_instances")
_RECOMMENDED = {_WATCHES: 524_288, _INSTANCES: 512}


def _read(setting: str) -> int | None:
    try:
        with open("/proc/sys/" + setting.replace(".", "/"), encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _in_force(settings: tuple[str, str]) -> tuple[str, int | None]:
    known = [(value, setting) for setting in settings if (value := _read(setting)) is not None]
    if not known:
        return settings[0], None
    value, setting = min(known, key=lambda pair: pair[0])
    return setting, value


def _describe(settings: tuple[str, str]) -> tuple[str, str]:
    """Return the limit in words, and the commands that raise it now and permanently."""
    setting, value = _in_force(settings)
    line = f"{setting}={max(_RECOMMENDED[settings], 2 * (value or 0))}"
    limit = f"{setting} is {value}" if value is not None else f"{setting} is reached"
    return limit, f"sudo sysctl {line}; to keep it, echo {line} | sudo tee /etc/sysctl.d/60-inotify.conf"


def watch_limit() -> tuple[int | None, str]:
    """Return the limit of watches in force (None if this kernel has none), and the commands that raise it."""
    return _in_force(_WATCHES)[1], _describe(_WATCHES)[1]


def no_instance(error: OSError) -> SyncWarning:
    """Return the warning that nothing can be watched, as inotify gave no instance."""
    what = "changes cannot be watched, the workspace is polled"
    if error.errno == errno.EMFILE and not _descriptors_used_up():
        limit, remedy = _describe(_INSTANCES)
        return SyncWarning(
            "watch:instances", f"{what}, as all inotify instances of this user are taken ({limit})", remedy
        )
    why = os.strerror(error.errno) if error.errno else str(error)
    remedy = "run on a kernel, or in a sandbox, that allows inotify"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        remedy = "raise `ulimit -n` (LimitNOFILE=)"
    return SyncWarning("watch:none", f"{what}, as inotify gives no instance ({why})", remedy)


def unwatched(missed: Mapping[str, int], total: int) -> tuple[SyncWarning, ...]:
    """Return the warnings about directories (relative path to errno) that cannot be watched, one for each errno."""
    by_reason: dict[int, list[str]] = {}
    for path, code in missed.items():
        by_reason.setdefault(code, []).append(path)
    return tuple(_reason(code, paths, total) for code, paths in sorted(by_reason.items()))


def _reason(code: int, paths: list[str], total: int) -> SyncWarning:
    first = shown_path(min(paths) or ".")
    if code == errno.ENOSPC:
        limit, remedy = _describe(_WATCHES)
        what = f"{len(paths)} of {total} directories cannot be watched and are polled (first: {first}), as {limit}"
        return SyncWarning("watch:limit", what, remedy)
    others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    what = f"{first}{others} cannot be watched and is polled ({os.strerror(code)})"
    remedy = "nothing to do; changes in it are found by periodic scans"
    if code == errno.EACCES:
        remedy = f"run `chmod u+rx {shlex.quote(first)}` in the workspace"
    return SyncWarning(f"watch:{errno.errorcode.get(code, code)}", what, remedy)


def _descriptors_used_up() -> bool:
    """True if no more descriptors can be opened: EMFILE means either that, or that the user's instances are used up."""
    try:
        os.close(os.open("/", os.O_PATH | os.O_CLOEXEC))
    except OSError:
        return True
    return False


logger = logging.getLogger(__name__)

_GIT = b".git"
ALWAYS_RELEVANT = frozenset({_GIT, *map(str.encode, RULE_FILES)})
"""Names that are relevant even if they are excluded: they decide which other paths are."""
# After a read, the descriptor is not polled for so long. That collects events, so that a burst costs a third.
_COLLECT_S = 0.01

Event = tuple[int, int, bytes]
"""Watch descriptor (-1: the queue itself), mask, name ("" for the directory itself)."""

CHANGES = (
    In.IN_CREATE
    | In.IN_DELETE
    | In.IN_MODIFY
    | In.IN_ATTRIB
    | In.IN_MOVED_FROM
    | In.IN_MOVED_TO
    # A write through mmap causes no IN_MODIFY, but IN_CLOSE_WRITE when the last writable descriptor or mapping ends.
    | In.IN_CLOSE_WRITE
    # Not through a name that was removed: programs that write to such files would cause scans without end. Where the
    # file has another name, the rescan finds the change.
    | In.IN_EXCL_UNLINK
)
"""Without IN_OPEN, IN_ACCESS and IN_CLOSE_NOWRITE: the daemon's own reading must not start a sync."""
SELF = In.IN_DELETE_SELF | In.IN_MOVE_SELF
"""Only for the workspace: for every other directory the parent's watch reports this."""
ENTRIES = In.IN_CREATE | In.IN_DELETE | In.IN_MOVED_FROM | In.IN_MOVED_TO
"""For the directory that holds the workspace."""
RULES = ENTRIES | In.IN_CLOSE_WRITE | In.IN_ATTRIB | In.IN_MASK_ADD
"""For a directory with rules outside of the workspace; added to the events that it is already watched for."""
REMOVED = SELF | In.IN_UNMOUNT | In.IN_IGNORED

# Holds the kernel's queue of 16,384 events, if their names are of ordinary length.
BUFFER_BYTES = 1 << 20
_HEADER = struct.Struct("iIII")  # watch descriptor, mask, cookie, length of the name


class Inotify:
    """An inotify instance (inotify(7)), whose descriptor becomes readable when there are events.

    Raises `OSError` (EMFILE: the user's instances, or the process's descriptors, are used up).
    """

    def __init__(self) -> None:
        self._descriptor = _checked(inotify_c.inotify_init())
        os.set_inheritable(self._descriptor, False)
        os.set_blocking(self._descriptor, False)

    def filenos(self) -> list[int]:
        return [self._descriptor]

    def add(self, path: bytes, mask: int) -> int:
        """Watch the directory at `path` (again) for `mask`; the watch descriptor is the same for the same inode.

        Raises `OSError`: ENOSPC (limit of watches), EACCES (unreadable), ENOENT, ENOTDIR, ENAMETOOLONG.
        """
        return _checked(inotify_c.inotify_add_watch(self._descriptor, path, inotify_c.Mask(mask | In.IN_ONLYDIR)))

    def remove(self, wd: int) -> None:
        """Remove a watch; the kernel may have removed it already."""
        inotify_c.inotify_rm_watch(self._descriptor, inotify_c.WatchDescriptor(wd))

    def read(self) -> list[Event]:
        """Return the events that the kernel has queued, as many as the buffer holds. Raises `OSError`."""
        try:
            buffer = os.read(self._descriptor, BUFFER_BYTES)
        except BlockingIOError:
            return []
        events: list[Event] = []
        at = 0
        while at < len(buffer):
            wd, mask, _, length = _HEADER.unpack_from(buffer, at)
            at += _HEADER.size + length
            events.append((wd, mask, buffer[at - length : at].rstrip(b"\0")))
        return events

    def close(self) -> None:
        os.close(self._descriptor)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class _WatchTarget(Struct):
    """A watched directory with its path in the last scan and the scope of its names."""

    path: str
    scope: Scope
    scan: int


class InotifyWatch(ScanListener):
    """Watches one workspace through inotify."""

    def __init__(self, root: str, clock: Clock) -> None:
        self._workspace = root
        self._root = os.fsencode(root)
        self._root_name = os.path.basename(self._root)
        self._clock = clock
        self._inotify: Inotify | None = None
        self._no_instance: SyncWarning | None = None
        self._targets: dict[int, _WatchTarget] = {}
        self._rule_files: Mapping[str, frozenset[str]] = {}  # outside of the workspace, by their directories
        self._outside: dict[int, set[bytes]] = {}  # by the watch on a directory there the names that matter
        self._failed: dict[str, tuple[int, int]] = {}  # added, but not watched: path to (errno, scan)
        self._shared: dict[str, str] = {}  # by path the types of the shared file systems that were scanned
        self._scan = 0
        self.collects_until_s = inf
        """The monotonic second until which `filenos()` is empty, as events are collected."""
        self.found_s = -inf
        """The monotonic second of the last change to a directory that had no watch until a scan found it."""

    def open(self) -> None:
        """Begin to watch; if inotify gives no instance, nothing is watched and `warnings()` says why."""
        self.close()
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._no_instance = no_instance(error)
        else:
            self._no_instance = None

    def close(self) -> None:
        """Remove all watches. It may be called again; `open()` starts again."""
        inotify, self._inotify = self._inotify, None
        if inotify is not None:
            inotify.close()
        self._targets.clear()
        self._failed.clear()
        self._outside.clear()
        self.collects_until_s = inf

    def filenos(self) -> list[int]:
        if self._inotify is None or self.collects_until_s < inf:
            return []
        return self._inotify.filenos()

    def take(self) -> Changes:
        """Return the changes since the last call, which need a rescan if events were lost."""
        self.collects_until_s = inf
        if self._inotify is None:
            return Changes()
        try:
            events = self._inotify.read()
            if events:
                self.collects_until_s = self._clock.monotonic_s() + _COLLECT_S
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
        self._watch_outside()

    def add_rule_files(self, directories: Mapping[str, frozenset[str]]) -> None:
        """Watch directories outside of the workspace for the names of files with rules that apply in it."""
        self._rule_files = directories
        self._watch_outside()

    def add_directory(self, path: str, fd: int, scope: Scope) -> None:
        """Watch the directory open at `fd` with this `path` ("" is the workspace). Call it before listing.

        It is called between `begin()` and `finish()`, or at any time for a single directory. `scope` decides which of
        its events are relevant. It never raises: directories without a watch are in `warnings()`.
        """
        if self._inotify is None:
            self._failed[path] = (0, self._scan)
            return
        try:
            self._register(self._add(self._inotify, path, fd), path, scope, fd)
        except OSError as error:
            self._record_failure(path, error)
            return
        if self._failed:
            self._failed.pop(path, None)

    def finish(self) -> None:
        """End a full scan: directories that it did not add are no longer watched."""
        self._failed = {path: failure for path, failure in self._failed.items() if failure[1] == self._scan}
        for wd in [wd for wd, target in self._targets.items() if target.scan != self._scan]:
            del self._targets[wd]
            if self._inotify is not None:
                self._inotify.remove(wd)
        scanned = {"", *self._failed, *(target.path for target in self._targets.values())}
        self._shared = {path: kind for path, kind in sorted(shared_parts(self._workspace).items()) if path in scanned}

    def warnings(self) -> tuple[SyncWarning, ...]:
        """Return warnings about what is not watched now, or does not report all changes, with the reasons."""
        shared = tuple(shared_warning(path, kind) for path, kind in self._shared.items())
        if self._no_instance is not None:
            return (self._no_instance, *shared)
        missed = {path: code for path, (code, _) in self._failed.items()}
        return (*unwatched(missed, len(missed) + len(self._targets)), *shared)

    @property
    def needs_polling(self) -> bool:
        """True if not every change in the workspace causes an event, so that it must be scanned again and again."""
        return bool(self._failed or self._shared) or self._inotify is None

    # -- watches

    def _add(self, inotify: Inotify, path: str, fd: int) -> int:
        mask = CHANGES if path else CHANGES | SELF
        try:
            # Through the descriptor: the path cannot be swapped meanwhile, nor be too long.
            return inotify.add(b"/proc/self/fd/%d" % fd, mask)
        except FileNotFoundError:  # no /proc here
            return inotify.add(os.path.join(self._root, os.fsencode(path)), mask | In.IN_DONT_FOLLOW)

    def _register(self, wd: int, path: str, scope: Scope, fd: int) -> None:
        target = self._targets.get(wd)
        if target is None:
            self._targets[wd] = _WatchTarget(path, scope, self._scan)
            age_s = max(0.0, self._clock.wall_s() - os.fstat(fd).st_ctime)
            self.found_s = max(self.found_s, self._clock.monotonic_s() - age_s)
            return
        target.path, target.scope, target.scan = path, scope, self._scan

    def _record_failure(self, path: str, error: OSError) -> None:
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and path:
            return  # it was removed since it was opened: its parent's watch reports that
        self._failed[path] = (error.errno or 0, self._scan)

    def _watch_outside(self) -> None:
        """Watch directories with rules, and all above the workspace: it may be moved away with one, and put back.

        It never raises and never warns: a change that is missed is found by the next scan, which reads all rules.
        """
        if self._inotify is None:
            return
        parent, *further = _parents(self._root)
        # Other changes in the upper directories do not matter, and a home directory has many.
        wanted = [(parent, SELF | ENTRIES, {self._root_name, _GIT})]  # a new repository around it has rules
        wanted += [(folder, SELF, set()) for folder in further]
        wanted += [(os.fsencode(at), RULES, set(map(os.fsencode, names))) for at, names in self._rule_files.items()]
        found: dict[int, set[bytes]] = {}
        for folder, mask, names in wanted:
            try:
                found.setdefault(self._inotify.add(folder, mask), set()).update(names)
            except OSError as error:
                logger.debug("%r, outside of the workspace, is not watched: %s", folder, error)
        stale = self._outside.keys() - found.keys() - self._targets.keys()
        self._outside = found
        for wd in stale:
            self._inotify.remove(wd)

    # -- events

    def _changes(self, events: Iterable[Event]) -> Changes:
        """Return the directories and files of the events, without excluded names."""
        targets = self._targets
        dirty: set[str] = set()
        modified: set[str] = set()
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
                    # Its parent too, as another directory may have its name by now.
                    dirty.add(os.path.dirname(target.path))
            elif target.path in dirty or _is_relevant(target.scope, name, mask):
                dirty.add(target.path)
                if mask & In.IN_CLOSE_WRITE:
                    modified.add(os.path.join(target.path, os.fsdecode(name)))
        return Changes(frozenset(dirty), frozenset(modified), rescan)

    def _is_outside(self, wd: int, mask: int, name: bytes) -> bool:
        """True if the workspace itself may have moved, or the rules outside of it may have changed."""
        names = self._outside.get(wd)
        return names is not None and (name in names or bool(mask & (SELF | In.IN_IGNORED)))


def _parents(path: bytes) -> list[bytes]:
    """Return the directories above a path, the nearest first; "/" only if it is the nearest, as it cannot be moved."""
    above = [os.path.dirname(path)]
    while os.path.dirname(above[-1]) != b"/" and above[-1] != b"/":
        above.append(os.path.dirname(above[-1]))
    return above


def _is_relevant(scope: Scope, name: bytes, mask: int) -> bool:
    return name in ALWAYS_RELEVANT or scope.decide(os.fsdecode(name), bool(mask & In.IN_ISDIR)).included
