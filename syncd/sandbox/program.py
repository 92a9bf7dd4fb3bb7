"""The program that syncd runs in the sandbox: one request in, one report out.

It is sent as text, as `main.py` with `request.json` beside it, without the parts that the request does not need, and
runs with any Python from 3.8 on. The request has a key for each verb, and so has the report:

`look` compares paths with their versions, copies what differs beside itself, lists what is new, removes what is to be
removed and still is as a version, and finds what keeps others from being extracted. It opens paths through directory
descriptors and follows no link below the workspace. Everything is looked at and copied before anything is removed. Each
of its parts has a share of its time, and is ended in its middle when that is over: what was not looked at by then is
reported as such. What changed at home comes first, a large file after all smaller ones. A search for what is new ends
with a mark. With the mark of an earlier one (`since`) it reads and reports only what has changed by its change time,
which no program can set, and the names in each folder that has; where other folders are there than then, it ends
without a mark.

`commit` has the repository in the workspace hold what was sent. The line of its tag `home` has a commit for each sync
that it is told of. The agent's branch, its index and HEAD follow only while the branch has no commit of the agent's and
the work tree is clean: what someone does there is not undone.

`log` puts what the agent's commits say and changed, and the contents that they have, into a file beside itself.

`run` runs a command in the workspace, prints what that prints, and reports how it ended, and how many paths of a sample
are missing then. A lock keeps a second one from running there at the same time, also where the first one outlives its
execution: that one only waits for the end of the first.

Git is run as no one has configured it. It runs programs for hooks, filters, the file system monitor, text conversion,
diffs, merges, signatures, editors, pagers, aliases, credentials and missing objects (githooks(5), gitattributes(5),
git-config(1)). Only plumbing commands are run, which need none of them; the settings and the environment, which are
those at home too, switch off what they could still reach.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections import deque
from itertools import groupby
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes

# A FIFO in a file's place must not block, nor a terminal become this process's own.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BLOCK = 1 << 18
_SPARE_BYTES = 64 << 20  # stay free on the disk
_DIGEST_BYTES = 16  # of each SHA-256 in a request
_LONGEST_LINE = 3800  # a longer report becomes a file, since some logs cut longer lines
_PLAIN = "".join(letter for letter in map(chr, range(32, 127)) if letter not in '%"\\')

# With Linux's O_PATH search permission is enough.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_COPY = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# With these nothing is at the path, or something behind a link or a file that took a directory's place.
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_LARGE_BYTES = 1 << 20  # such a file is compared last
_LONGEST_PATH = 3840  # home takes no longer one, so a folder of such a path is not entered
_MOST_TEXT_BYTES = 32 << 20  # of all new paths with their targets, and of those not entered, in the report
_LARGEST_REFERENCES = 64 << 20
_MOMENT_NS = 2 * 10**7  # what changes once more so soon may have the same time, as the kernel's clock is coarse
_LOCK_POLL_S = 0.1
_AWAY_S = 1.0  # so long someone may take to put another folder in the workspace's place
_MOST_CHANGED = 1000  # of more entries, it costs less to compare all
# The shares of its time: until when it compares, searches and copies. The rest is for removals and the report.
_COMPARES, _SEARCHES, _COPIES = 0.5, 0.75, 0.9
# The outcomes of the request's paths, by their letters in the report.
_SAME, _DIFFERS, _REMOVED, _KEPT, _FAILED, _MISSING, _BLOCKED, _UNSEEN = b"=drkfmbu"


def _now_s() -> float:
    return time.monotonic()  # noqa: TID251 - no clock of syncd's is here


class _Version(NamedTuple):
    """A version in a request: `kind` is d, l, f, x (an executable file), u (of unknown content), or n (nothing)."""

    kind: str
    size: int
    digest: bytes
    target: bytes


class _TimeIsUp(BaseException):
    """The time of the present part is over."""


def _ring(*_: Any) -> None:
    raise _TimeIsUp


def _within(seconds: float, act: Any) -> Any:
    """Return what `act` returns; None if it was ended in its middle after so many seconds, or if there are none.

    It is ended also while it waits for a file system. No part is within another one.
    """
    if seconds <= 0:
        return None
    try:
        try:
            signal.signal(signal.SIGALRM, _ring)
            signal.setitimer(signal.ITIMER_REAL, seconds)
            return act()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _TimeIsUp:
        return None
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


def _has_locked(descriptor: int, within_s: float) -> bool:
    """Lock an open file, and return True; False if another one has it for so long."""
    ends_s = _now_s() + within_s
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if _now_s() >= ends_s:
            return False
        time.sleep(_LOCK_POLL_S)  # noqa: TID251


def _text_of(name: bytes) -> str:
    """Return a name for the report: any other byte as `%` and two digits, so that no text has a quote or an escape."""
    return quote_from_bytes(name, _PLAIN)


def _bytes_of(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _listed(request: dict[str, Any]) -> Any:
    """Yield the letter of each item of a request, its path, and its versions."""
    digests = base64.b64decode(request["digests"])
    place = 0
    for item in request["items"].split("\0\0") if request["items"] else ():
        path, *texts = item.split("\0")
        versions = []
        for kind, fact in ((text[0], text[1:]) for text in texts):
            if kind in "fx":
                versions.append(_Version(kind, int(fact), digests[place : place + _DIGEST_BYTES], b""))
                place += _DIGEST_BYTES
            else:
                versions.append(_Version(kind, -1, b"", _bytes_of(fact)))
        yield path[0], _bytes_of(path[1:]), versions


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash(descriptor: int, most: int, write: Any = None) -> tuple[bytes, int]:
    """Return the digest of an open file and its length, of no more than so many bytes: a growing file ends too."""
    sha256 = hashlib.sha256()
    left = most
    while left > 0:
        block = os.read(descriptor, min(_BLOCK, left))
        if not block:
            break
        sha256.update(block)
        left -= len(block)
        if write is not None:
            write(block)
    return sha256.digest(), most - left


def _content(folder: Any, name: Any) -> bytes:
    """Return the content of a small file; empty if there is none."""
    try:
        with open(os.open(os.path.join(folder, name), _FILE), "rb") as file:
            return file.read(_LARGEST_REFERENCES) or b""  # None of a FIFO
    except FileNotFoundError:
        return b""
    except OSError:
        return b"unreadable"


# -- look


class _SeenEntry:
    """The entry at one path."""

    __slots__ = ("copy", "digest", "kind", "mode", "mtime", "size", "target", "unstable")

    def __init__(self, kind: str, status: os.stat_result | None = None, target: bytes = b"") -> None:
        self.kind = kind
        self.mode = self.size = self.mtime = 0
        self.target = target
        self.digest = b""
        self.copy = -1
        self.unstable = False
        if status is not None:
            self.take(status)

    def take(self, status: os.stat_result) -> None:
        self.mode, self.size, self.mtime = status.st_mode & 0o777, status.st_size, status.st_mtime_ns // 10**9

    def changes(self) -> None:
        """Note that the file changes while it is looked at."""
        self.unstable, self.digest = True, b""

    def same_as_any(self, versions: list[Any]) -> bool:
        """Return True if the entry is as one of the versions; a file's digest must be known."""
        kind = "x" if self.kind == "f" and self.mode & stat.S_IXUSR else self.kind or "n"
        for version in versions:
            if kind == version.kind and (
                kind in ("d", "n")
                or (kind == "l" and self.target == version.target)
                or (self.digest and self.size == version.size and self.digest[:_DIGEST_BYTES] == version.digest)
            ):
                return True
        return False

    def row(self) -> list[Any]:
        """Return the row of the report; only a link's has a target."""
        digest = base64.b64encode(self.digest).decode("ascii")
        row = [self.kind, self.mode, self.size, self.mtime, digest, self.copy, self.unstable]
        return [*row, _text_of(self.target)] if self.kind == "l" else row


def _workspace() -> int:
    """Return a descriptor of the workspace; where there is none for a while, of an empty folder in its place.

    Raises `OSError`.
    """
    ends_s = _now_s() + _AWAY_S
    while _now_s() < ends_s:
        with contextlib.suppress(FileNotFoundError):
            return os.open(os.environ["AGENT_WORKSPACE"], _LISTED)
        time.sleep(_LOCK_POLL_S)  # noqa: TID251
    with tempfile.TemporaryDirectory() as folder:
        return os.open(folder, _LISTED)


class _Look:
    """One look, by the request."""

    def __init__(self, request: dict[str, Any], top: int, own: str) -> None:
        self._request = request
        self._own = own
        self._top = self._open = top
        self._open_path = b""  # of the folder that was used last, and stays open: paths come folder by folder
        self._began_s = _now_s()
        self._outcomes = bytearray(_SAME if action == "e" else _UNSEEN for action, _, _ in _listed(request))
        self._differing: dict[int, _SeenEntry] = {}
        self._failed: dict[int, str] = {}
        self._blocked: dict[bytes, list[Any]] = {}
        self._new: dict[bytes, _SeenEntry] = {}
        self._text_bytes = 0
        self._pruned: list[bytes] = []
        self._unlisted = self._unsearched = 0
        self._folders, self._newest_ns = hashlib.sha256(), 0  # for the mark
        self._since = request["since"]
        self._after_ns = self._since[1] if self._since else -1
        self._names_in: dict[bytes, list[bytes]] = {}
        self._is_complete = True
        # Each with its size, a number that keeps the order, its index if it is none of the new ones, and its versions.
        self._to_copy: list[tuple[int, int, int, bytes, _SeenEntry, list[Any]]] = []
        self._copied = 0

    def run(self) -> dict[str, Any]:
        """Do all that is asked, and return the report."""
        removals = [(index, item) for index, item in enumerate(_listed(self._request)) if item[0] == "r"]
        _within(self._left_s(_COMPARES if self._request["find_new"] else _SEARCHES), self._compare_all)
        mark = self._find_new() if self._request["find_new"] else None
        if self._since and (mark is None or self._is_other(mark)):  # all is to be asked for
            mark, self._new, self._names_in, self._to_copy = None, {}, {}, []
        _within(self._left_s(_COPIES), self._copy_all)
        for index, (_, path, versions) in removals:
            self._close_folder()  # a directory that was moved away meanwhile is not the workspace's any more
            self._outcomes[index] = self._remove(index, path, versions)
        _within(self._left_s(1.0), self._check_places)
        self._close_folder()
        os.close(self._top)
        return {
            "outcomes": [[chr(letter), sum(1 for _ in same)] for letter, same in groupby(self._outcomes)],
            "differing": [found.row() for _, found in sorted(self._differing.items())],
            "failed": [reason for _, reason in sorted(self._failed.items())],
            "blocked": list(self._blocked.values()),
            "new": {_text_of(path): found.row() for path, found in self._new.items()},
            "pruned": [_text_of(path) for path in self._pruned],
            "unlisted": self._unlisted,
            "unsearched": self._unsearched,
            "mark": mark,
            "names": {_text_of(path or b"."): list(map(_text_of, names)) for path, names in self._names_in.items()},
        }

    def _left_s(self, share: float) -> float:
        """Return the seconds until so much of the time is over."""
        return float(self._began_s + share * self._request["within_s"] - _now_s())

    def _compare_all(self) -> None:
        for letters in ("f", "ce"):
            large = []
            for index, (action, path, versions) in enumerate(_listed(self._request)):
                if action not in letters:
                    continue
                if action == "e":
                    self._outcomes[index] = _SAME if self._kind_at(path) else _MISSING
                elif action == "c" and self._since and not self._may_have_changed(path):
                    self._outcomes[index] = _SAME
                elif not self._compare(index, path, versions, action, _LARGE_BYTES):
                    large.append((max(version.size for version in versions), index, action, path, versions))
            for _, index, action, path, versions in sorted(large, key=lambda item: item[:2]):
                self._compare(index, path, versions, action, sys.maxsize)

    def _folder(self, path: bytes) -> int:
        """Return a descriptor that stays open until the next call. Raises `OSError`, also for a link."""
        if path != self._open_path:
            if not (self._open_path and path.startswith(self._open_path + b"/")):
                self._close_folder()
            for name in path[len(self._open_path) :].split(b"/"):
                if name:
                    descriptor = os.open(name, _FOLDER, dir_fd=self._open)
                    above = self._open_path + b"/" + name if self._open_path else name
                    self._close_folder()
                    self._open_path, self._open = above, descriptor
        return self._open

    def _close_folder(self) -> None:
        """Close the open folder: the next call opens each one on the way anew."""
        descriptor, self._open, self._open_path = self._open, self._top, b""
        if descriptor != self._top:
            os.close(descriptor)

    def _stat(self, path: bytes) -> os.stat_result:
        """Return the status of what is at a path. Raises `OSError`, also if a link is on the way."""
        folder, _, name = path.rpartition(b"/")
        return os.stat(name, dir_fd=self._folder(folder), follow_symlinks=False)

    def _kind_at(self, path: bytes) -> str:
        """Return the kind of what is at a path: "" if nothing is, "?" if that cannot be told."""
        try:
            return _kind_of(self._stat(path).st_mode)
        except OSError as failure:
            return "" if failure.errno in _NOTHING else "?"

    def _may_have_changed(self, path: bytes) -> bool:
        """Return True unless the change time of an entry tells that it is as at the mark."""
        with contextlib.suppress(OSError):
            return self._stat(path).st_ctime_ns > self._after_ns
        return True

    def _seen(
        self, path: bytes, versions: list[Any], most: int = sys.maxsize
    ) -> tuple[_SeenEntry, os.stat_result | None]:
        """Return the entry at a path, with its digest if the size is one of the versions' and no more than `most`.

        Raises `OSError`.
        """
        try:
            status = self._stat(path)
            kind = _kind_of(status.st_mode)
            name = path.rpartition(b"/")[2]
            found = _SeenEntry(kind, status, os.readlink(name, dir_fd=self._open) if kind == "l" else b"")
            if kind == "f" and status.st_size <= most and any(each.size == status.st_size for each in versions):
                status = self._read(found, path)
        except OSError as failure:
            if failure.errno in _NOTHING:
                return _SeenEntry(""), None
            raise
        return found, status

    @contextlib.contextmanager
    def _opened(self, path: bytes) -> Any:
        """Open the file at a path; it yields the descriptor and its status. Raises `OSError`, also for no file."""
        folder, _, name = path.rpartition(b"/")
        descriptor = os.open(name, _FILE, dir_fd=self._folder(folder))
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            yield descriptor, status
        finally:
            os.close(descriptor)

    def _read(self, found: _SeenEntry, path: bytes) -> os.stat_result:
        """Fill in the digest, or that the file changes. Raises `OSError`."""
        before: os.stat_result
        with self._opened(path) as (descriptor, before):
            found.digest, length = _hash(descriptor, before.st_size + 1)
            if length != before.st_size or _stamp(os.fstat(descriptor)) != _stamp(before):
                found.changes()
        found.take(before)
        return before

    def _compare(self, index: int, path: bytes, versions: list[Any], action: str, most: int) -> bool:
        """Compare one item, and return True, unless a file with more than so many bytes is to be read for that."""
        try:
            found, _ = self._seen(path, versions, most)
        except OSError:
            found = _SeenEntry("?")
        if found.kind == "f" and found.size > most and any(version.size == found.size for version in versions):
            return False
        differs = not found.same_as_any(versions) and (found.kind or versions)
        if differs:
            self._differing[index] = found
            if action == "f" and found.kind == "f":
                self._to_copy.append((found.size, len(self._to_copy), index, path, found, versions))
        self._outcomes[index] = _DIFFERS if differs else _SAME
        return True

    def _find_new(self) -> list[Any] | None:
        """List what is beyond the items, a directory before what is in it. Return the mark, if all was searched."""
        folders = deque([b""])
        began_ns = self._kernel_ns()
        _within(self._left_s(_SEARCHES), lambda: self._search(folders))
        for folder in folders:
            self._unsearched += 1
            self._prune(folder)
        if self._unsearched or self._unlisted or not self._is_complete:
            return None
        # What changed while this search was under way may have come behind its back.
        after_ns = min(self._newest_ns, began_ns - _MOMENT_NS)
        return [self._folders.hexdigest(), after_ns]

    def _kernel_ns(self) -> int:
        """Return the time by the clock that gives files their change times. Raises `OSError`."""
        path = os.path.join(self._own, "now")
        with open(path, "xb") as file:
            os.unlink(path)
            return os.fstat(file.fileno()).st_ctime_ns

    def _is_other(self, mark: list[Any]) -> bool:
        """Return True if the times do not tell what has changed since then: folders came, went or moved, or a clock."""
        if mark[0] != self._since[0] or mark[1] < self._after_ns:
            return True
        return len(self._new) > _MOST_CHANGED or sum(map(len, self._names_in.values())) > self._request["most_names"]

    def _note(self, path: bytes, status: os.stat_result) -> bool:
        """Note an entry for the mark, and return True if it may have changed since then."""
        if stat.S_ISDIR(status.st_mode):
            self._folders.update(b"%s\0%d\n" % (path, status.st_ino))
        self._newest_ns = max(self._newest_ns, status.st_ctime_ns)
        return status.st_ctime_ns > self._after_ns

    def _search(self, folders: deque[bytes]) -> None:
        """Search these folders and those in them; a folder leaves the queue once it was searched."""
        items = {path for _, path, _ in _listed(self._request)}
        pruned = {_bytes_of(name) for name in self._request["pruned"]}
        repository = re.compile(self._request["repository"].encode("ascii"))
        own = os.stat(self._own)
        changed = {b""} if self._note(b"", os.fstat(self._top)) else set()
        while folders:
            folder = folders[0]
            try:
                names = self._names(folder)
            except OSError as failure:
                names = []
                self._is_complete = False
                if failure.errno not in _NOTHING:
                    self._prune(folder)
            if self._since and folder in changed:
                self._names_in[folder] = []
            for name in names:
                path = folder + b"/" + name if folder else name
                if repository.search(name):
                    self._prune(path)
                    continue
                try:
                    found, status = self._seen(path, [])
                except OSError:
                    found, status = _SeenEntry("?"), None
                    self._is_complete = False
                if status is not None and (status.st_dev, status.st_ino) == (own.st_dev, own.st_ino):
                    continue  # executions may have their folders in the workspace
                if folder in self._names_in:
                    self._names_in[folder].append(name)
                if found.kind == "d" and status is not None and name in pruned:
                    self._prune(path)
                    continue
                may_have_changed = status is None or self._note(path, status)  # a path that is gone is in no mark
                if may_have_changed and found.kind == "d":
                    changed.add(path)
                if may_have_changed and path not in items and found.kind:
                    self._add_new(path, found)
                if found.kind == "d" and len(path) <= _LONGEST_PATH:
                    folders.append(path)
                elif found.kind == "d":
                    self._unsearched += 1
                    self._prune(path)
            folders.popleft()

    def _count_listed(self, count: int, *texts: bytes) -> bool:
        """Count these; True if they may be listed beside so many others."""
        self._text_bytes += sum(len(_text_of(text)) for text in texts)
        may = count < self._request["most_new"] and self._text_bytes <= _MOST_TEXT_BYTES
        self._unlisted += not may
        return may

    def _prune(self, path: bytes) -> None:
        if self._count_listed(len(self._pruned), path):
            self._pruned.append(path or b".")

    def _names(self, folder: bytes) -> list[bytes]:
        listed = os.open(b".", _LISTED, dir_fd=self._folder(folder))
        try:
            return sorted(os.fsencode(name) for name in os.listdir(listed))
        finally:
            os.close(listed)

    def _add_new(self, path: bytes, found: _SeenEntry) -> None:
        if self._count_listed(len(self._new), path, found.target):
            self._new[path] = found
            if found.kind == "f":
                self._to_copy.append((found.size, len(self._to_copy), -1, path, found, []))

    def _copy_all(self) -> None:
        """Copy the smallest files first, within the limit and the room on the disk."""
        left = self._request["most_copied_bytes"]
        for _, _, index, path, found, versions in sorted(self._to_copy, key=lambda item: item[:2]):
            try:
                left -= self._copy(path, found, left)
            except OSError as failure:
                if failure.errno in _FULL:
                    left = -1
                elif failure.errno in _NOTHING:
                    found.changes()
                else:
                    found.kind, found.digest, found.unstable = "?", b"", False
            if found.same_as_any(versions):  # someone put it back meanwhile
                del self._differing[index]
                self._outcomes[index] = _SAME

    def _copy(self, path: bytes, found: _SeenEntry, left: int) -> int:
        """Copy a file that does not change meanwhile, and return the length of the copy. Raises `OSError`."""
        to = os.path.join(self._own, "copies", str(self._copied))
        with self._opened(path) as (source, before):
            disk = os.statvfs(self._own)
            if before.st_size > min(left, disk.f_bavail * disk.f_frsize - _SPARE_BYTES):
                return 0
            copied, unstable = b"", True
            try:
                os.makedirs(os.path.dirname(to), 0o700, exist_ok=True)
                with open(os.open(to, _COPY, 0o600), "wb", buffering=_BLOCK) as file:
                    copied, length = _hash(source, before.st_size + 1, file.write)
                os.lseek(source, 0, os.SEEK_SET)
                again, length_again = _hash(source, before.st_size + 1)
                # By name too: an editor that replaces the file leaves the old one as it was.
                stamps = {_stamp(before), _stamp(os.fstat(source)), _stamp(self._stat(path))}
                unstable = copied != again or {length, length_again} != {before.st_size} or len(stamps) > 1
            finally:
                if unstable:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(to)
            if unstable:
                found.changes()
                return 0
        found.take(before)
        found.digest, found.unstable = copied, False
        found.copy, self._copied = self._copied, self._copied + 1
        return length

    def _is_too_late(self) -> bool:
        """Return True if no one waits for this look any more: it began late, or takes long."""
        return time.time() > self._request["not_after_s"] or self._left_s(1.0) < 0  # noqa: TID251

    def _remove(self, index: int, path: bytes, versions: list[Any]) -> int:
        """Remove what is at a path if it is as a version, and return the outcome."""
        folder, _, name = path.rpartition(b"/")
        try:
            seen = _within(self._left_s(1.0), lambda: self._seen(path, versions))
            found, status = seen or (_SeenEntry("?"), None)
            if seen is None or (status is not None and found.same_as_any(versions) and self._is_too_late()):
                self._failed[index] = "it would have come too late"
                return _FAILED
            if status is None:
                return _REMOVED
            if found.same_as_any(versions):
                parent = self._folder(folder)
                if found.kind == "d":
                    os.rmdir(name, dir_fd=parent)
                    return _REMOVED
                if _stamp(self._stat(path)) == _stamp(status):
                    os.unlink(name, dir_fd=parent)
                    return _REMOVED
                found.changes()
            self._differing[index] = found
        except OSError as failure:
            if failure.errno in _NOTHING:
                return _REMOVED
            if failure.errno in (errno.EEXIST, errno.ENOTEMPTY):
                return _KEPT  # it holds something else
            self._failed[index] = os.strerror(failure.errno or 0)
            return _FAILED
        return _DIFFERS

    def _check_places(self) -> None:
        """Note what keeps a path from being extracted, once for all that it keeps."""
        for index, (action, path, versions) in enumerate(_listed(self._request)):
            if action not in "pg":  # PLACE and COMMITS of the request
                continue
            self._outcomes[index] = _SAME
            if len(self._blocked) == self._request["most_blocked"]:
                continue
            found = self._obstacle(path, versions[0].kind)
            if action == "g" and _holds_commits(os.path.join(os.fsencode(os.environ["AGENT_WORKSPACE"]), path)):
                found = path, "g"
            if found is not None and found[0] not in self._blocked:
                place, kind = found
                self._blocked[place] = [path.count(b"/") - place.count(b"/"), kind]
                self._outcomes[index] = _BLOCKED

    def _obstacle(self, path: bytes, kind: str) -> tuple[bytes, str] | None:
        """Return the place and kind of what keeps a path from being extracted as a directory, "d", or another kind.

        The kind is "r" if a directory cannot be written; the place is then the highest path that cannot be made in it.
        """
        made = there = path
        kind_there = self._kind_at(path)
        while kind_there in ("", "?"):
            made, there = there, there.rpartition(b"/")[0]
            kind_there = self._kind_at(there) if there else "d"
        if there == path and kind_there == "d":
            return None if kind == "d" else (path, "d")
        if kind_there != "d" and (there != path or kind == "d"):
            return there, kind_there
        if there == path and kind_there == "l" and self._leads_out(path):
            return path, "l"  # some extractors refuse what is at such a link, and all else with it
        folder = made.rpartition(b"/")[0] or b"."
        return None if os.access(folder, os.W_OK | os.X_OK, dir_fd=self._top) else (made, "r")

    @staticmethod
    def _leads_out(path: bytes) -> bool:
        top = os.path.realpath(os.fsencode(os.environ["AGENT_WORKSPACE"]))
        folder = os.path.dirname(os.path.join(top, path))
        try:
            target = os.path.normpath(os.path.join(folder, os.readlink(os.path.join(top, path))))
        except OSError:  # it is no link any more
            return False
        # A link of ours, which may lead through another one that leads out, is not in its own way.
        return not any((each + b"/").startswith(top + b"/") for each in (target, os.path.realpath(target)))


def _kind_of(mode: int) -> str:
    """Return the kind of what has this mode: "d", "f", "l", or "o" for all others."""
    return {stat.S_IFDIR: "d", stat.S_IFREG: "f", stat.S_IFLNK: "l"}.get(stat.S_IFMT(mode), "o")


def _holds_commits(folder: bytes) -> bool:
    """Return True if a reference of the repository may lead to a commit that syncd did not make.

    An archive that holds another repository would take the place of all of them.
    """
    if not os.path.lexists(os.path.join(folder, b"HEAD")):
        return False
    texts = _content(folder, b"refs/syncd/home"), _content(folder, b"syncd/state")
    ours = set(re.findall(rb"[0-9a-f]{40}", b"\n".join(texts)))
    found = re.findall(rb"(?m)^\^?([0-9a-f]{40,64}\b|unreadable)", _content(folder, b"packed-refs"))
    for part in (b"refs", b"worktrees"):
        for base, _, names in os.walk(os.path.join(folder, part)):
            found += [_content(base, name).strip() for name in names if part == b"refs" or name == b"HEAD"]
    tips = {tip for tip in [*found, _content(folder, b"HEAD").strip()] if not tip.startswith(b"ref: ")}
    return not tips <= ours or os.path.lexists(os.path.join(folder, b"reftable"))


# -- run

_MOST_PRINTED_BYTES, _LAST_BYTES = 1 << 20, 1 << 16  # of the output as it comes; of the rest its end
_PRINT_EVERY_S, _REST_S = 0.1, 0.5
_NOT_FOUND = 127  # the exit code of a shell for a command that it cannot start


def _run(request: dict[str, Any]) -> dict[str, Any]:
    """Run a command to its end or for its time, and return the report."""
    workspace, command = os.environb[b"AGENT_WORKSPACE"], [_bytes_of(word) for word in request["command"]]
    try:
        top = os.open(workspace, _LISTED)
        if not _has_locked(top, 0):
            _has_locked(top, request["wait_s"])
            return {"state": "busy"}  # who still wants the run asks once more
        began_s = _now_s()
        process = subprocess.Popen(
            command,
            cwd=workspace,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(top,),  # what outlives this program keeps the lock
            start_new_session=True,
            preexec_fn=_ending_with_parent(),  # noqa: PLW1509 - there are no threads
        )
    except OSError as failure:
        what, why = failure.filename or command[0], os.strerror(failure.errno or 0)
        sys.stdout.buffer.write(b"%s: %s\n" % (os.fsencode(what), why.encode()))
        return {"state": "ended", "exit_code": _NOT_FOUND}
    is_over = _print_output(process, began_s + request["within_s"])
    if not is_over:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    fcntl.flock(top, fcntl.LOCK_UN)  # also for a server that the command has left running
    seconds = _now_s() - began_s
    missing = sum(not os.path.lexists(os.path.join(workspace, _bytes_of(path))) for path in request["sample"])
    state = "ended" if is_over else "overdue"
    return {"state": state, "exit_code": 128 - code if code < 0 else code, "seconds": seconds, "missing": missing}


def _ending_with_parent() -> Any:
    """Return what has a child end when this process is killed (prctl(2)); None where that cannot be asked for."""
    try:
        import ctypes  # noqa: PLC0415 - some Pythons lack it

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    return lambda: prctl(1, signal.SIGKILL, 0, 0, 0)


def _print_output(process: Any, ends_s: float) -> bool:
    """Print what the process prints, until it has ended; False if that second came before."""
    pipe, is_open, is_over = process.stdout.fileno(), True, False
    left, unprinted, rest, end = _MOST_PRINTED_BYTES, 0, b"", b""
    while _now_s() < ends_s:
        if not is_over and process.poll() is not None:
            is_over, ends_s = True, _now_s() + _REST_S  # what it left running may print on
        if is_open and select.select([pipe], [], [], 0 if is_over else _PRINT_EVERY_S)[0]:
            block = os.read(pipe, _BLOCK)
            is_open = bool(block)
            sys.stdout.buffer.write(block[:left])
            sys.stdout.flush()
            unprinted += len(block[left:])
            rest, end = (rest + block[left:])[-_LAST_BYTES:], block[-1:] or end
            left = max(0, left - len(block))
        elif is_over:
            break
        elif not is_open:
            time.sleep(_PRINT_EVERY_S)  # noqa: TID251
    if rest:
        sys.stdout.buffer.write(b"\n[%d bytes are left out]\n" % (unprinted - len(rest)) + rest)
    if end not in (b"", b"\n"):  # the report has a line of its own
        sys.stdout.buffer.write(b"\n")
    return is_over


# -- git

# A larger file is compared as a binary one, has no deltas, and goes through memory in blocks only.
LARGE_BYTES = 16 << 20
SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.untrackedCache=false",
    "core.pager=cat",
    "core.editor=:",
    "core.sshCommand=false",
    "core.alternateRefsCommand=false",
    "core.commitGraph=false",
    "core.multiPackIndex=false",
    "commit.gpgSign=false",
    "credential.helper=",
    "protocol.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
    f"core.bigFileThreshold={LARGE_BYTES}",
)
ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    # Versions of git that do not know the line above find no way to fetch.
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "1",
}
NO_CONFIGURATION = {
    "HOME": "/dev/null",  # nothing is found below it either
    "XDG_CONFIG_HOME": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}
# What git keeps in a repository while something that someone has begun there is under way.
_UNDER_WAY = (
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "BISECT_LOG",
    "rebase-merge",
    "rebase-apply",
    "sequencer",
)
_ID = re.compile("[0-9a-f]{40}")  # of an object
_MOST_OUTPUT = 64 << 20  # of a command whose output is kept; folders within folders can be endless
_PRIVATE = "[core]\n\trepositoryformatversion = 0\n\tcompression = 1\n[fastimport]\n\tunpackLimit = 200\n"
_LOCK_S = 7.0  # a run that was given up ends within that
_HOME, _FOR_PEOPLE = "refs/syncd/home", "refs/tags/home"  # the last commit; the second may be moved by anyone
_PARTS = {"syncd", "objects", "refs", "info", "config", "index"}  # of a repository, before it has its HEAD
_REFUSED_PATTERNS = ".[gG][iI][tT]\n.[gG][iI][tT][ .:\\\\]*\n[gG][iI][tT]~1*\n"
_NEW = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n"
_AGENT = "[user]\n\tname = agent\n\temail = agent@localhost\n"
# Its objects are the bytes that were sent, whatever `.gitattributes` say; else git would call those files modified.
_ATTRIBUTES = "* -text -ident -filter !working-tree-encoding\n"
# What git takes for its own folder, or for the list of its submodules, on some system, and refuses (path.c, fsck.c).
_REFUSED = re.compile(rb"(^|/)(\.git|git~1)[ .]*([:\\][^/]*)?(/|\Z)", re.IGNORECASE)
_REFUSED_LINK = re.compile(rb"(^|/)(\.gitmodules|gitmod~[1-4])[ .]*([:\\][^/]*)?\Z", re.IGNORECASE)
_MODES = {"f": b"100644", "x": b"100755", "l": b"120000"}
_MOST_LISTED = 100000  # commits that are counted


def quoted(path: bytes) -> bytes:
    """Return the path in double quotes, as git reads it: each byte that is not plain ASCII in octal digits."""
    plain = b"".join(b"%c" % byte if 0x20 <= byte < 0x7F and byte not in b'"\\' else b"\\%03o" % byte for byte in path)
    return b'"%s"' % plain


class _Refused(Exception):
    """The request cannot be carried out; the arguments are the state that is reported, and the reason."""


class _PrivateGit:
    """git, with a private folder as its repository, which only shares the objects of the agent's."""

    def __init__(self, private: str, workspace: str) -> None:
        self.workspace = workspace
        self.private = private
        self.agent = os.path.join(workspace, ".git")
        path = ":".join(part for part in os.environ.get("PATH", os.defpath).split(":") if part.startswith("/"))
        self._program = shutil.which("git", path=path) or ""
        for folder in ("refs/heads", "objects", "info"):
            os.makedirs(os.path.join(private, folder))
        _write_text(os.path.join(private, "HEAD"), "ref: refs/heads/home\n")
        _write_text(os.path.join(private, "config"), _PRIVATE)
        _write_text(os.path.join(private, "info", "attributes"), _ATTRIBUTES)
        self._environment = dict(
            ENVIRONMENT,
            PATH=path,
            GIT_DIR=private,
            GIT_WORK_TREE=workspace,
            GIT_OBJECT_DIRECTORY=os.path.join(self.agent, "objects"),
            GIT_OPTIONAL_LOCKS="1",  # an index that was refreshed is kept
            **NO_CONFIGURATION,
        )

    def run(self, *arguments: str, **options: Any) -> bytes:
        """Run a command as `result` does, and return its output. Raises `Refused` if it fails."""
        output, code, complaint = self.result(*arguments, **options)
        _check(arguments[0], code, complaint)
        return output

    def result(
        self, *arguments: str, text: bytes = b"", feed: Any = None, to: Any = subprocess.PIPE, **variables: Any
    ) -> tuple[bytes, int, str]:
        """Run a command, and return its output, exit code and complaint.

        Its input is this text, or what `feed` writes into a pipe; its output goes into the file `to` where there is
        one. `variables` are of its environment; None: it is not set. Raises `Refused` if there is no git, or if it
        prints too much, `OSError` if it cannot be started.
        """
        if not self._program:
            raise _Refused("failed", "no git is installed in the sandbox")
        changed = dict(self._environment, **variables)
        environment = {name: value for name, value in changed.items() if value is not None}
        options = [part for setting in SETTINGS for part in ("-c", setting)]
        with tempfile.TemporaryFile(dir=self.private) as given, tempfile.TemporaryFile(dir=self.private) as complaints:
            given.write(text)
            given.seek(0)
            process = subprocess.Popen(
                # Names are UTF-8, whatever the locale there is.
                [_bytes_of(part) for part in [self._program, "--no-pager", *options, *arguments]],
                stdin=given if feed is None else subprocess.PIPE,
                stdout=to,
                stderr=complaints,
                cwd=self.workspace,
                env=environment,
            )
            with process:
                try:
                    if process.stdin is not None:
                        with contextlib.suppress(BrokenPipeError), process.stdin as into:
                            feed(into)
                    output = b"" if process.stdout is None else process.stdout.read(_MOST_OUTPUT + 1)
                    if len(output) > _MOST_OUTPUT:
                        raise _Refused("failed", f"git {arguments[0]} prints too much")
                    code = process.wait()
                finally:
                    process.kill()  # if it has not ended
            complaints.seek(0)
            return output, code, complaints.read(_BLOCK).decode("utf-8", "replace")

    def reference(self, name: str) -> str:
        """Return the commit of a reference in the agent's repository; empty if there is none."""
        output, code, _ = self.result("rev-parse", "--verify", "--quiet", name + "^{commit}", GIT_DIR=self.agent)
        return "" if code else output.decode("ascii").strip()

    def is_ancestor(self, commit: str, of: str) -> bool:
        return self.result("merge-base", "--is-ancestor", commit, of)[1] == 0

    def move(self, name: str, to: str, before: str) -> bool:
        """Move a reference of the agent's repository if it still is as before; empty: it must not exist."""
        return self.result("update-ref", name, to, before or "0" * 40, GIT_DIR=self.agent)[1] == 0


def _check(command: str, code: int, complaint: str) -> None:
    """Raise `Refused` if the command failed, with the line that says why."""
    if code:
        lines = complaint.strip().splitlines() or [""]
        reasons = [line for line in lines if line.startswith(("error: ", "fatal: "))] or lines[-1:]
        raise _Refused("failed", f"git {command} ended with {code}: {reasons[0][:200]}")


def _write_text(path: str | bytes, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def _by_git(act: Any, own: str, within_s: float) -> dict[str, Any]:
    """Return the report of what `act` does with git, and what it returns; it is ended when its time is over."""
    try:
        git = _PrivateGit(os.path.join(own, "git"), os.environ["AGENT_WORKSPACE"])
        found = _within(within_s, lambda: act(git))
        return {"state": "failed", "why": "it takes too long"} if found is None else dict(found, state="done")
    except _Refused as refused:
        return {"state": refused.args[0], "why": refused.args[1]}
    except OSError as failure:
        return {"state": "failed", "why": os.strerror(failure.errno or 0)}
    finally:
        shutil.rmtree(os.path.join(own, "git"), ignore_errors=True)


# -- commit


class _Repository:
    """The repository in the sandbox.

    Its commits are made of the files there that are as they were sent. What is not, or what git refuses, stays as it is
    in the parent. Paths may lead through a link: what is read there is what was sent, or not used.
    """

    def __init__(self, git: _PrivateGit, request: dict[str, Any]) -> None:
        self._git = git
        self._request = request
        self._top = git.agent

    def follow(self) -> dict[str, Any]:
        """Make the repository, or have it follow; return the report. Raises `Refused`, `OSError`."""
        names = self._names()
        if names:
            if not (names >= {"syncd", "HEAD"} or self._are_remains(names)):
                raise _Refused("foreign", "someone else made a repository there")
            self._lock()
            names = self._names()  # another run may have completed it
        if names is not None and "HEAD" in names:
            return {"home": self._go_on()}
        if not self._request["whole"]:
            raise _Refused("lost", "there is no repository any more")
        return {"home": self._make()}

    def _names(self) -> set[str] | None:
        """Return the names in the repository's folder; None if there is none. Raises `Refused` if it is no folder."""
        try:
            if stat.S_ISDIR(os.lstat(self._top).st_mode):
                return set(os.listdir(self._top))
        except FileNotFoundError:
            return None
        raise _Refused("foreign", "someone else made a repository there")

    def _are_remains(self, names: set[str]) -> bool:
        """Return True if it is one that this program did not complete, or wrote to while it was deleted."""
        has_references = any(files for _, _, files in os.walk(self._path("refs")))
        return names <= _PARTS and ("syncd" in names or not has_references)

    def _lock(self) -> None:
        """Wait until no other run of this program is under way: one may have been given up. Raises `Refused`."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._path("syncd"))  # for this program's own files
        self._locked = open(self._path("syncd/lock"), "ab")  # noqa: SIM115 - to the end
        if not _has_locked(self._locked.fileno(), _LOCK_S):
            raise _Refused("failed", "another run is under way")

    def _make(self) -> str:
        """Make the repository, in place of what is left of one, and return its commit."""
        disk = os.statvfs(self._git.workspace)
        sizes = (version.size for _, _, versions in _listed(self._request) for version in versions)
        if sum(max(0, size) for size in sizes) + _SPARE_BYTES > disk.f_bavail * disk.f_frsize:
            raise _Refused("failed", "the disk there has no room for a repository")
        # The references go first: see `_are_remains`.
        shutil.rmtree(self._path("refs"), ignore_errors=True)
        shutil.rmtree(self._top, ignore_errors=True)
        os.mkdir(self._top)
        self._lock()
        for folder in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info"):
            os.makedirs(self._path(folder))
        # Whoever commits there may have told git a name and an address; only the settings are read for that.
        persons: dict[str, Any] = {name: os.environ.get(name) for name in NO_CONFIGURATION}
        words = ("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
        _, is_unknown, _ = self._git.result(*words, **persons)
        _write_text(self._path("config"), _NEW + (_AGENT if is_unknown else ""))
        _write_text(self._path("info/attributes"), _ATTRIBUTES)
        _write_text(self._path("info/exclude"), self._request["exclude"] + _REFUSED_PATTERNS)
        home, branch = self._commit(""), self._request["branch"]
        for name in (_HOME, _FOR_PEOPLE, "refs/heads/" + branch):
            path = os.path.join(os.fsencode(self._top), _bytes_of(name))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _write_text(path, home + "\n")
        index = self._path("syncd/index")
        self._git.run("read-tree", home, GIT_INDEX_FILE=index)
        self._git.result("update-index", "-q", "--refresh", GIT_INDEX_FILE=index)
        os.rename(index, self._path("index"))
        self._note(branch, home)
        # It is a repository from now on, and complete.
        head = self._path("syncd/HEAD")
        _write_text(head, "ref: refs/heads/" + branch + "\n")
        os.link(head, self._path("HEAD"))
        os.unlink(head)
        return home

    def _go_on(self) -> str:
        """Have the repository follow, and return its commit."""
        self._git.run("rev-parse", "--git-dir", GIT_DIR=self._git.agent)  # or else each reference seems to be missing
        before = self._git.reference(_HOME)
        if not before:
            raise _Refused("foreign", "someone else made a repository there")
        # The same changes may have been made by an earlier run whose answer was lost.
        if self._request["home"] not in (before, self._git.reference(_HOME + "^")) and not self._request["whole"]:
            raise _Refused("lost", "another commit is there")
        self._remove_leftovers()
        home = self._commit(before)
        if home != before and not self._git.move(_HOME, home, before):
            raise _Refused("failed", "someone else moves the references")
        self._git.result("update-ref", _FOR_PEOPLE, home, GIT_DIR=self._git.agent)
        with contextlib.suppress(OSError):  # someone changes the index or the branch
            self._move_agent(home)
        return home

    def _commit(self, parent: str) -> str:
        """Return the id of the commit, which is the parent if nothing is otherwise than there."""
        words = ("fast-import", "--quiet", "--done", "--depth=0")
        self._git.run(*words, feed=lambda into: self._write_commit(into, parent))
        made = self._git.run("rev-parse", "refs/heads/home").decode("ascii").strip()
        return parent if parent and self._git.result("diff-tree", "--quiet", parent, made)[1] == 0 else made

    def _write_commit(self, into: Any, parent: str) -> None:
        gone, named, lines = [], set(), []
        for mark, (_, path, versions) in enumerate(_listed(self._request), 1):
            named.add(path)
            if versions[0].kind == "n":
                gone.append(path)
            elif not (_REFUSED.search(path) or (versions[0].kind == "l" and _REFUSED_LINK.search(path))):
                with contextlib.suppress(OSError):
                    if self._write_blob(into, mark, path, versions[0]):
                        lines.append(b"M %s :%d %s\n" % (_MODES[versions[0].kind], mark, quoted(path)))
        if self._request["whole"] and parent:
            listed = self._git.run("ls-tree", "-r", "-z", "--name-only", "--full-tree", parent)
            gone += set(listed.split(b"\0")[:-1]).difference(named)
        person, message = _bytes_of(self._request["person"]), _bytes_of(self._request["message"])
        into.write(b"commit refs/heads/home\ncommitter %s\ndata %d\n%s\n" % (person, len(message), message))
        if parent:
            into.write(b"from %s\n" % parent.encode("ascii"))
        # A file may take the place of a directory, and the other way round: what is gone makes room first.
        into.write(b"".join(b"D %s\n" % quoted(path) for path in gone))
        into.write(b"".join(lines) + b"done\n")

    def _write_blob(self, into: Any, mark: int, path: bytes, sent: _Version) -> bool:
        """Write what is at a path, and return True if it is as it was sent; else no one uses that. Raises `OSError`."""
        place, begin = os.path.join(os.fsencode(self._git.workspace), path), b"blob\nmark :%d\ndata %d\n"
        if sent.kind == "l":
            into.write(begin % (mark, len(sent.target)) + sent.target + b"\n")
            return os.readlink(place) == sent.target
        if sent.kind not in "fx":
            return False
        with open(os.open(place, _FILE), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size != sent.size:
                return False
            into.write(begin % (mark, sent.size))
            digest, length = _hash(file.fileno(), sent.size, into.write)
            for left in range(sent.size - length, 0, -_BLOCK):  # it was cut short
                into.write(bytes(min(left, _BLOCK)))
            into.write(b"\n")
        return digest[:_DIGEST_BYTES] == sent.digest

    def _remove_leftovers(self) -> None:
        """Remove what a run left that was killed: the lock of the index, if it is this program's, and its own files."""
        lock = self._path("index.lock")
        with contextlib.suppress(OSError):
            if os.path.samefile(lock, self._path("syncd/index")):
                os.unlink(lock)
        for name in ("syncd/index", "syncd/index.lock", "syncd/HEAD", _HOME + ".lock", _FOR_PEOPLE + ".lock"):
            with contextlib.suppress(OSError):
                os.unlink(self._path(name))

    def _move_agent(self, home: str) -> None:
        """Move the agent's branch and index to the commit, if no one works there. Raises `OSError`.

        Then the branch that this program made is checked out and has no commit of anyone's, the index is that of such a
        commit, and the work tree is clean.
        """
        name, _, left = self._read("syncd/state").partition("\n")
        branch, index = "refs/heads/" + name, self._path("syncd/index")
        at = self._git.reference(branch)
        if self._head() != branch or not at or not self._git.is_ancestor(at, home):
            return
        if any(os.path.lexists(self._path(each)) for each in _UNDER_WAY):
            return
        with contextlib.suppress(OSError):
            shutil.copyfile(self._path("info/exclude"), os.path.join(self._git.private, "info", "exclude"))
        before = self._copy_index(index)
        words = ("diff-index", "--cached", "--quiet")
        commits = {at, home, left if _ID.fullmatch(left) else at}
        if all(self._git.result(*words, commit, GIT_INDEX_FILE=index)[1] for commit in commits):
            return
        _, code, _ = self._git.result("read-tree", "-i", "-m", home, GIT_INDEX_FILE=index)
        words = ("status", "--porcelain", "--ignore-submodules=all")
        if not code and self._git.result(*words, GIT_INDEX_FILE=index)[:2] == (b"", 0):
            self._note(name, at)
            self._install(index, before, branch, at, home)

    def _install(self, index: str, before: tuple[int, ...], branch: str, at: str, home: str) -> None:
        """Put the index in its place and move the branch, unless someone changes either. Raises `OSError`."""
        lock = self._path("index.lock")
        os.link(index, lock)  # as git's own lock; by its inode a later run knows that it is no one else's
        try:
            is_as_before = _stamp(os.lstat(self._path("index"))) == before and self._head() == branch
            if is_as_before and (at == home or self._git.move(branch, home, at)):
                os.rename(lock, self._path("index"))
        finally:
            for path in (lock, index):
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def _copy_index(self, to: str) -> tuple[int, ...]:
        """Copy the agent's index, and return the stamp of what was copied. Raises `OSError`."""
        with open(os.open(self._path("index"), _FILE), "rb") as source, open(to, "xb") as copy:
            before = _stamp(os.fstat(source.fileno()))
            shutil.copyfileobj(source, copy, _BLOCK)
        return before

    def _head(self) -> str:
        """Return the reference that HEAD names; empty if it is detached."""
        head = self._read("HEAD")
        return head[5:].strip() if head.startswith("ref: ") else ""

    def _note(self, branch: str, left: str) -> None:
        """Note the agent's branch and the commit that its index holds, should the next move of both be cut short."""
        path = self._path("syncd/state")
        _write_text(path + ".new", branch + "\n" + left)
        os.rename(path + ".new", path)

    def _path(self, name: str) -> str:
        return os.path.join(self._top, name)

    def _read(self, name: str) -> str:
        return _content(self._top, name).decode("utf-8", "surrogateescape")


# -- log

# A commit's id, author and message, then what it changed; each part ends with a NUL.
_COMPARE = (
    *("diff-tree", "--stdin", "--root", "--always", "-r", "-z", "--raw", "--no-renames", "--no-abbrev"),
    *("--no-ext-diff", "--no-textconv", "--date=raw", "--encoding=UTF-8", "--format=%x00%H%x00%an <%ae> %ad%x00%B"),
)
_CHANGED = re.compile(rb"(?<=[\0\n]):[0-7]{6} ([0-7]{6}) [0-9a-f]{40} ([0-9a-f]{40}) [A-Z]\0")


class _Log:
    """Reads the commits on the first-parent line of HEAD that the commit `home` does not reach.

    Only HEAD and the references are asked from the agent's repository, by commands that read nothing else.
    """

    def __init__(self, git: _PrivateGit, request: dict[str, Any], own: str) -> None:
        self._git = git
        self._request = request
        self._own = own

    def write(self) -> dict[str, Any]:
        """Write all that is asked for into `copies/0`, and return the report. Raises `Refused`, `OSError`."""
        if self._git.result("cat-file", "-t", self._request["home"])[0].strip() != b"commit":
            raise _Refused("lost", "there is no repository in the sandbox's workspace that syncd made")
        head = self._head()
        words = ("rev-list", "--first-parent", "--parents", f"--max-count={_MOST_LISTED}")
        listed = self._git.run(*words, head, *self._ours(), "--").decode("ascii").splitlines()
        # Each commit with its first parent, the oldest first.
        pairs = [" ".join(line.split(" ")[:2]) for line in reversed(listed)]
        commits, told, contents = self._compared(pairs[: self._request["most_commits"]])
        report = {"commits": commits, "unlisted": len(pairs) - len(commits), "others": self._others(head)}
        return dict(report, told_bytes=len(told), file=self._written(told, contents)) if commits else report

    def _ours(self) -> list[str]:
        """Return what leaves our own commits out: those that `home` reaches, and a later one that was not answered."""
        latest = self._git.reference("refs/syncd/home")
        return ["^" + commit for commit in (self._request["home"], latest) if commit]

    def _head(self) -> str:
        """Return the id of HEAD's commit."""
        output, code, complaint = self._git.result("rev-parse", "HEAD", GIT_DIR=self._git.agent)
        if code and "ambiguous argument" in complaint:
            raise _Refused("lost", "HEAD has no commit in the sandbox")
        _check("rev-parse", code, complaint)
        head = output.decode("ascii").strip()
        if _ID.fullmatch(head) is None:
            raise _Refused("failed", "HEAD names no commit of such a repository")
        return head

    def _compared(self, pairs: list[str]) -> tuple[list[str], bytes, set[bytes]]:
        """Return the commits of which not too many paths changed, what git tells of them, and their contents' names."""
        while pairs:
            told = self._git.run(*_COMPARE, text="".join(pair + "\n" for pair in pairs).encode("ascii"))
            changed = _CHANGED.findall(told)
            if len(changed) <= self._request["most_paths"]:
                return pairs, told, {name for mode, name in changed if mode.startswith(b"1")}
            pairs = pairs[: len(pairs) // 2]
        return [], b"", set()

    def _written(self, told: bytes, contents: set[bytes]) -> list[Any]:
        """Write what git told, and the smallest contents for which there is room; return length and digest of all."""
        disk = os.statvfs(self._own)
        left = min(self._request["most_bytes"], disk.f_bavail * disk.f_frsize - _SPARE_BYTES) - len(told)
        if left < 0:
            raise _Refused("failed", "the disk there has no room for a copy of them, or they are too large")
        listed = self._git.run("cat-file", "--batch-check", text=b"\n".join([*contents, b""]))
        rows = [line.split(b" ") for line in listed.splitlines()]
        kept = []
        for size, name in sorted((int(row[2]), row[0]) for row in rows if row[1] == b"blob"):
            left -= size
            if left < 0:
                break
            kept.append(name)
        path = os.path.join(self._own, "copies", "0")
        os.mkdir(os.path.dirname(path), 0o700)
        with open(path, "x+b") as file:
            file.write(told)
            file.flush()
            self._git.run("cat-file", "--batch", text=b"\n".join([*kept, b""]), to=file)
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            return [size, _hash(file.fileno(), size)[0].hex()]

    def _others(self, head: str) -> int:
        """Return the number of commits of other branches and of what is stashed, beyond those of HEAD and `home`."""
        words = ("for-each-ref", "--format=%(objectname)", "refs/heads", "refs/stash")
        tips = self._git.result(*words, GIT_DIR=self._git.agent)[0].decode("ascii").split()
        text = "\n".join([*tips, "^" + head, *self._ours(), ""]).encode("ascii")
        count, code, _ = self._git.result("rev-list", "--count", "--stdin", text=text)
        return 0 if code else int(count)  # of a branch that cannot be read there is nothing to tell


# -- the request


def answer(request: dict[str, Any], own: str) -> dict[str, Any]:
    """Do what is asked, and return the report; `own` is the program's folder. Raises `OSError`."""
    verbs: dict[str, Any] = {
        "look": lambda asked: _Look(asked, _workspace(), own).run(),
        "run": lambda asked: _run(asked),  # noqa: PLW0108 - it is not sent for another verb
        "commit": lambda asked: _by_git(lambda git: _Repository(git, asked).follow(), own, asked["within_s"]),
        "log": lambda asked: _by_git(lambda git: _Log(git, asked, own).write(), own, asked["within_s"]),
    }
    report = {verb: act(request[verb]) for verb, act in verbs.items() if verb in request}
    report["ended_s"] = time.time()  # noqa: TID251
    return report


def printed(word: str, report: dict[str, Any], own: str) -> str:
    """Write the report to a file, and return the lines to print: its length and digest, first with it if it is short.

    Whatever a log is cut to, one of the lines tells what the file has to be.
    """
    text = json.dumps(report, separators=(",", ":"))
    content = text.encode("ascii")
    digest = hashlib.sha256(content).hexdigest()
    place = os.path.join(own, "report.json")
    with contextlib.suppress(OSError):  # of an earlier run
        os.unlink(place)
    try:
        with open(place, "xb") as file:
            file.write(content)
        lines = [text, ""] if len(content) <= _LONGEST_LINE else [""]
    except OSError:
        lines = [text]  # the log may take it
    return "".join(f"{word}={len(content)} {digest} {line}\n" for line in lines)


def run() -> None:
    """Read the request beside the program, and print the report.

    Both and the program are deleted first, so that the export of the folder holds the copies alone.
    """
    own = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(own, "request.json"), encoding="ascii") as file:
        request = json.load(file)
    for name in ("request.json", os.path.basename(__file__)):
        with contextlib.suppress(OSError):  # then the export holds it too, which does no harm
            os.unlink(os.path.join(own, name))
    sys.stdout.write(printed(request["word"], answer(request, own), own))


if __name__ == "__main__":
    run()
