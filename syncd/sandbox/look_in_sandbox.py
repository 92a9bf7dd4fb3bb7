"""The program that looks at the workspace in the sandbox. It runs there, alone, with any Python from 3.6 on.

It compares the paths on its list with their versions, copies what differs beside itself, and removes what is to be
removed and still is as a version; then it finds what keeps others from being extracted. It opens paths through
directory descriptors and follows no link below the workspace. Everything is looked at and copied before anything is
removed.

Each of its parts has a share of its time, and is ended in its middle when that is over: what was not looked at by then
is reported as such. What changed at home comes first, a large file after all smaller ones.

It deletes its list and itself first, so that the export of its folder holds the copies alone.
"""

import base64
import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import sys
import time
from collections import OrderedDict, deque
from typing import Any

from syncd.sandbox.places_in_sandbox import holds_commits, kind_of, obstacle

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # search permission is enough
# A FIFO in a file's place must not block, nor a terminal become this process's own.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_COPY = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_BLOCK = 1 << 18
_MOST_OPEN = 64  # directories
_SPARE_BYTES = 64 << 20  # stay free on the disk
_LONGEST_LOG = 200 << 10  # a longer report becomes a file, since an answer of the API is limited
_LONGEST_LINE = 4000  # some logs cut longer lines
# With these nothing is at the path, or something behind a link or a file that took a directory's place.
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_DIGEST_BYTES = 16  # of each SHA-256 on the list
_LARGE_BYTES = 1 << 20  # such a file is compared last
_LONGEST_PATH = 3840  # home takes no longer one, so a folder of such a path is not entered
_MOST_PATH_BYTES = 32 << 20  # of all new paths
# The shares of its time: until when it compares, searches and copies. The rest is for removals and the report.
_COMPARES, _SEARCHES, _COPIES = 0.5, 0.75, 0.9


class _TimeIsUp(BaseException):
    """The time of the present part is over."""


class _Alarm:
    """Ends a part of the look in its middle, also while it waits for a file system."""

    is_set = False
    is_usable = False

    @classmethod
    def ring(cls, *_: "Any") -> None:
        if cls.is_set:
            cls.is_set = False
            raise _TimeIsUp

    @classmethod
    def until(cls, ends_s: "float", act: "Any") -> "Any":
        """Return what `act` returns; None if that second of the monotonic clock ended it, or came before."""
        left_s = ends_s - time.monotonic()  # noqa: TID251 - no clock of syncd's is here
        if cls.is_usable and left_s <= 0:
            return None
        try:
            try:
                cls.is_set = cls.is_usable
                if cls.is_usable:
                    signal.setitimer(signal.ITIMER_REAL, left_s)
                return act()
            finally:
                cls.is_set = False
        except _TimeIsUp:
            return None
        finally:
            if cls.is_usable:  # else it would end the process while that ends
                signal.setitimer(signal.ITIMER_REAL, 0)


class _SeenEntry:
    """The entry at one path."""

    __slots__ = ("copy", "digest", "kind", "mode", "mtime", "size", "target", "unstable")

    def __init__(self, kind: "str", status: "os.stat_result | None" = None, target: "bytes" = b"") -> None:
        self.kind = kind
        self.mode = 0 if status is None else status.st_mode & 0o777
        self.size = 0 if status is None else status.st_size
        self.mtime = 0 if status is None else status.st_mtime_ns // 10**9
        self.digest = b""
        self.copy = -1
        self.unstable = False
        self.target = target

    def row(self, key: "int | str") -> "list[Any]":
        """Return the row of the report; only a link's has a target."""
        digest = base64.b64encode(self.digest).decode("ascii")
        row = [key, self.kind, self.mode, self.size, self.mtime, digest, self.copy, int(self.unstable)]
        return [*row, _text(self.target)] if self.kind == "l" else row


class _ListedVersion:
    """A version on the list: `kind` is d, l, f, x (an executable file), or u (of unknown content)."""

    __slots__ = ("digest", "kind", "size", "target")

    def __init__(self, kind: "str", size: "int" = -1, digest: "bytes" = b"", target: "bytes" = b"") -> None:
        self.kind = kind
        self.size = size
        self.digest = digest
        self.target = target


def _text(name: "bytes") -> "str":
    return name.decode("utf-8", "surrogateescape")


def _bytes(name: "str") -> "bytes":
    return name.encode("utf-8", "surrogateescape")


def _stamp(status: "os.stat_result") -> "tuple[int, int, int, int, int]":
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _same_as_any(found: "_SeenEntry", versions: "list[_ListedVersion]") -> "bool":
    """Return True if the entry is as one of the versions; a file's digest must be known."""
    for version in versions:
        if found.kind == "d" and version.kind == "d":
            return True
        if found.kind == "l" and version.kind == "l" and found.target == version.target:
            return True
        if (
            found.kind == "f"
            and found.digest
            and version.kind == ("x" if found.mode & stat.S_IXUSR else "f")
            and version.size == found.size
            and version.digest == found.digest[:_DIGEST_BYTES]
        ):
            return True
    return False


def _hash(descriptor: "int", size: "int", write: "Any" = None) -> "tuple[bytes, int]":
    """Return the digest of an open file and its length, at most one byte more than `size`: a growing file ends too."""
    sha256 = hashlib.sha256()
    left = size + 1
    while left > 0:
        block = os.read(descriptor, min(_BLOCK, left))
        if not block:
            break
        sha256.update(block)
        left -= len(block)
        if write is not None:
            write(block)
    return sha256.digest(), size + 1 - left


class _OpenDirectories:
    """The workspace's directories, of which the last used ones stay open."""

    def __init__(self, top: "int") -> None:
        self._top = top
        self._open = OrderedDict()  # type: OrderedDict[bytes, int]

    def descriptor(self, path: "bytes") -> "int":
        """Return a descriptor that stays open until the next call. Raises `OSError`, also for a link."""
        if not path:
            return self._top
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        names = []
        above = path
        while above and above not in self._open:
            above, _, name = above.rpartition(b"/")
            names.append(name)
        descriptor = self._open[above] if above else self._top
        while names:
            name = names.pop()
            descriptor = os.open(name, _FOLDER, dir_fd=descriptor)
            above = above + b"/" + name if above else name
            self._open[above] = descriptor
            if len(self._open) > _MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
        return descriptor

    def close(self) -> None:
        """Close all but the top: the next call opens each directory anew."""
        while self._open:
            os.close(self._open.popitem()[1])


class _Look:
    """One look, by the request."""

    def __init__(self, request: "dict[str, Any]", top: "int", own: "str") -> None:
        self._request = request
        self._own = own
        self._folders = _OpenDirectories(top)
        self._copied = 0
        self._began_s = time.monotonic()  # noqa: TID251
        self._to_copy = []  # type: list[tuple[int, int, bytes, _SeenEntry, list[_ListedVersion]]]
        self._differing = {}  # type: dict[int, _SeenEntry]
        self._new = {}  # type: dict[bytes, _SeenEntry]
        self._new_bytes = 0
        self._unlisted = 0
        self._pruned = []  # type: list[bytes]
        self._removed = []  # type: list[int]
        self._kept = []  # type: list[int]
        self._failed = []  # type: list[tuple[int, str]]
        self._missing = 0
        self._blocked = {}  # type: dict[bytes, list[Any]]
        self._paths = [_bytes(path) for path in request["paths"].split("\0")] if request["actions"] else []
        # The items that were not looked at.
        self._unseen = bytearray(action in "cCfFpg" for action in request["actions"])
        self._unseen_folders = 0

    def run(self) -> "list[str]":
        """Do all that is asked, and return the lines of the report."""
        removals = [item for item in self._items() if item[1] == "r"]
        _Alarm.until(self._at_s(_COMPARES if self._request["find_new"] else _SEARCHES), self._compare_all)
        if self._request["find_new"]:
            self._find_new()
        _Alarm.until(self._at_s(_COPIES), self._copy_all)
        for index, _, path, versions in removals:
            self._remove(index, path, versions)
        _Alarm.until(self._at_s(1.0), self._check_places)
        self._folders.close()
        return self._lines()

    def _at_s(self, share: "float") -> "float":
        return float(self._began_s + share * self._request["within_s"])

    def _items(self) -> "Any":
        """Yield each item's index, action, path and versions."""
        items = zip(self._request["actions"], self._paths, self._versions())  # noqa: B905
        return ((index, action, path, versions) for index, (action, path, versions) in enumerate(items))

    def _compare_all(self) -> None:
        for letters in ("fF", "cCe"):
            large = []
            for index, action, path, versions in self._items():
                if action == "e" and action in letters:
                    self._missing += self._status(path) is None
                elif action in letters and not self._compare(index, path, versions, action, _LARGE_BYTES):
                    large.append((max(version.size for version in versions), index, action, path, versions))
            for _, index, action, path, versions in sorted(large, key=lambda item: item[:2]):
                self._compare(index, path, versions, action, sys.maxsize)

    def _versions(self) -> "Any":
        """Yield the versions of each item, from their columns."""
        columns = self._request
        kinds, sizes, targets = iter(columns["kinds"]), map(int, columns["sizes"].split()), iter(columns["targets"])
        digests = base64.b64decode(columns["digests"])
        place = 0
        for count in columns["counts"]:
            versions = []
            for _ in range(ord(count) - 48):
                kind = next(kinds)
                if kind in "fx":
                    versions.append(_ListedVersion(kind, next(sizes), digests[place : place + _DIGEST_BYTES]))
                    place += _DIGEST_BYTES
                elif kind == "l":
                    versions.append(_ListedVersion(kind, target=_bytes(next(targets))))
                else:
                    versions.append(_ListedVersion(kind))
            yield versions

    def _status(self, path: "bytes") -> "os.stat_result | bool | None":
        """Return the status of what is at a path: None if nothing is, True if that cannot be told."""
        folder, _, name = path.rpartition(b"/")
        try:
            return os.stat(name, dir_fd=self._folders.descriptor(folder), follow_symlinks=False)
        except OSError as failure:
            return None if failure.errno in _NOTHING else True

    def _seen(
        self, path: "bytes", versions: "list[_ListedVersion]", most: "int" = sys.maxsize
    ) -> "tuple[_SeenEntry, os.stat_result | None]":
        """Return the entry at a path, with its digest if the size is one of the versions' and no more than `most`.

        Raises `OSError`.
        """
        folder, _, name = path.rpartition(b"/")
        try:
            parent = self._folders.descriptor(folder)
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            kind = kind_of(status.st_mode)
            found = _SeenEntry(kind, status, os.readlink(name, dir_fd=parent) if kind == "l" else b"")
            if kind == "f" and status.st_size <= most and any(each.size == status.st_size for each in versions):
                status = self._read(found, parent, name)
        except OSError as failure:
            if failure.errno in _NOTHING:
                return _SeenEntry(""), None
            raise
        return found, status

    def _read(self, found: "_SeenEntry", parent: "int", name: "bytes") -> "os.stat_result":
        """Fill in the digest, or that the file changes."""
        descriptor = os.open(name, _FILE, dir_fd=parent)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            digest, length = _hash(descriptor, before.st_size)
            found.unstable = length != before.st_size or _stamp(os.fstat(descriptor)) != _stamp(before)
        finally:
            os.close(descriptor)
        found.mode, found.size, found.mtime = before.st_mode & 0o777, before.st_size, before.st_mtime_ns // 10**9
        found.digest = b"" if found.unstable else digest
        return before

    def _compare(
        self, index: "int", path: "bytes", versions: "list[_ListedVersion]", action: "str", most: "int"
    ) -> "bool":
        """Compare one item, and return True, unless a file with more than so many bytes is to be read for that."""
        # With a capital letter, it is no difference if nothing is there.
        try:
            found, _ = self._seen(path, versions, most)
        except OSError:
            found = _SeenEntry("?")
        if found.kind == "f" and found.size > most and any(version.size == found.size for version in versions):
            return False
        if not _same_as_any(found, versions) and (found.kind or (versions and not action.isupper())):
            self._differing[index] = found
            if action in "fF" and found.kind == "f":
                self._to_copy.append((found.size, len(self._to_copy), path, found, versions))
        self._unseen[index] = 0
        return True

    def _find_new(self) -> None:
        """List what is beyond the items, a directory before what is in it."""
        folders = deque([b""])
        _Alarm.until(self._at_s(_SEARCHES), lambda: self._search(folders))
        for folder in folders:
            self._note_unsearched(folder)

    def _note_unsearched(self, folder: "bytes") -> None:
        self._unseen_folders += 1
        self._prune(folder or b".")

    def _search(self, folders: "deque[bytes]") -> None:
        """Search these folders and those in them; a folder leaves the queue once it was searched."""
        items = set(self._paths)
        pruned = {_bytes(name) for name in self._request["pruned"]}
        own = os.stat(self._own)
        while folders:
            folder = folders[0]
            try:
                names = self._names(folder)
            except OSError as failure:
                if failure.errno not in _NOTHING:
                    self._prune(folder or b".")
                folders.popleft()
                continue
            for name in names:
                path = folder + b"/" + name if folder else name
                if name.lower() == b".git":
                    self._prune(path)
                    continue
                try:
                    found, status = self._seen(path, [])
                except OSError:
                    found, status = _SeenEntry("?"), None
                if found.kind == "d" and status is not None:
                    if (status.st_dev, status.st_ino) == (own.st_dev, own.st_ino):
                        continue  # executions may have their folders in the workspace
                    if name in pruned:
                        self._prune(path)
                        continue
                if path not in items and found.kind:
                    self._add_new(path, found)
                if found.kind == "d" and len(path) <= _LONGEST_PATH:
                    folders.append(path)
                elif found.kind == "d":
                    self._note_unsearched(path)
            folders.popleft()

    def _prune(self, path: "bytes") -> None:
        if len(self._pruned) < self._request["most_new"]:
            self._pruned.append(path)
        else:
            self._unlisted += 1

    def _names(self, folder: "bytes") -> "list[bytes]":
        listed = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folders.descriptor(folder))
        try:
            return sorted(os.fsencode(name) for name in os.listdir(listed))
        finally:
            os.close(listed)

    def _add_new(self, path: "bytes", found: "_SeenEntry") -> None:
        self._new_bytes += len(path)
        if len(self._new) >= self._request["most_new"] or self._new_bytes > _MOST_PATH_BYTES:
            self._unlisted += 1
            return
        self._new[path] = found
        if found.kind == "f":
            self._to_copy.append((found.size, len(self._to_copy), path, found, []))

    def _copy_all(self) -> None:
        """Copy the smallest files first, within the limit and the room on the disk."""
        left = self._request["most_copied_bytes"]
        copies = os.path.join(self._own, "copies")
        if not self._to_copy:
            return
        try:
            os.mkdir(copies, 0o700)
        except OSError:
            return
        for _, _, path, found, versions in sorted(self._to_copy, key=lambda item: item[:2]):
            try:
                left -= self._copy(path, found, os.path.join(copies, str(self._copied)), left)
            except OSError as failure:
                if failure.errno in _FULL:
                    left = -1
                elif failure.errno in _NOTHING:
                    found.unstable, found.digest = True, b""
                else:
                    found.kind, found.digest, found.unstable = "?", b"", False
            if versions and not found.unstable and _same_as_any(found, versions):
                # Someone put it back meanwhile.
                self._differing = {index: other for index, other in self._differing.items() if other is not found}

    def _copy(self, path: "bytes", found: "_SeenEntry", to: "str", left: "int") -> "int":
        """Copy a file that does not change meanwhile, and return the length of the copy. Raises `OSError`."""
        folder, _, name = path.rpartition(b"/")
        source = os.open(name, _FILE, dir_fd=self._folders.descriptor(folder))
        try:
            before = os.fstat(source)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            disk = os.statvfs(self._own)
            if before.st_size > min(left, disk.f_bavail * disk.f_frsize - _SPARE_BYTES):
                return 0
            copied, unstable = b"", True
            try:
                with open(os.open(to, _COPY, 0o600), "wb", buffering=_BLOCK) as file:
                    copied, length = _hash(source, before.st_size, file.write)
                os.lseek(source, 0, os.SEEK_SET)
                again, length_again = _hash(source, before.st_size)
                # By name too: an editor that replaces the file leaves the old one as it was.
                after = os.stat(name, dir_fd=self._folders.descriptor(folder), follow_symlinks=False)
                stamps = {_stamp(before), _stamp(os.fstat(source)), _stamp(after)}
                unstable = copied != again or {length, length_again} != {before.st_size} or len(stamps) > 1
            finally:
                if unstable:
                    os.unlink(to)
            if unstable:
                found.unstable, found.digest = True, b""
                return 0
        finally:
            os.close(source)
        found.mode, found.size, found.mtime = before.st_mode & 0o777, before.st_size, before.st_mtime_ns // 10**9
        found.digest, found.unstable = copied, False
        found.copy, self._copied = self._copied, self._copied + 1
        return length

    def _is_too_late(self) -> "bool":
        """Return True if no one waits for this look any more: it began late, or takes long."""
        not_after_s = self._request["not_after_s"]  # by this machine's clock, 0 if it is not known
        if not_after_s and time.time() > not_after_s:  # noqa: TID251
            return True
        return time.monotonic() > self._at_s(1.0)  # noqa: TID251

    def _remove(self, index: "int", path: "bytes", versions: "list[_ListedVersion]") -> None:
        folder, _, name = path.rpartition(b"/")
        self._folders.close()  # a directory that was moved away meanwhile is not the workspace's any more
        try:
            if self._is_too_late() and self._status(path) is None:
                self._removed.append(index)
                return
            seen = _Alarm.until(self._at_s(1.0), lambda: self._seen(path, versions))
            found, status = seen or (_SeenEntry("?"), None)
            if seen is None or (status is not None and _same_as_any(found, versions) and self._is_too_late()):
                self._failed.append((index, "it would have come too late"))
            elif status is None:
                self._removed.append(index)
            elif not _same_as_any(found, versions):
                self._differing[index] = found
            elif found.kind == "d":
                os.rmdir(name, dir_fd=self._folders.descriptor(folder))
                self._removed.append(index)
            else:
                parent = self._folders.descriptor(folder)
                if _stamp(os.stat(name, dir_fd=parent, follow_symlinks=False)) != _stamp(status):
                    found.unstable, found.digest = True, b""
                    self._differing[index] = found
                    return
                os.unlink(name, dir_fd=parent)
                self._removed.append(index)
        except OSError as failure:
            if failure.errno in _NOTHING:
                self._removed.append(index)
            elif failure.errno in (errno.EEXIST, errno.ENOTEMPTY):
                self._kept.append(index)  # it holds something else
            else:
                self._failed.append((index, os.strerror(failure.errno or 0)))

    def _check_places(self) -> None:
        """Note what keeps a path from being extracted, once for all that it keeps."""
        for index, action, path, versions in self._items():
            if action not in "pg":
                continue
            self._unseen[index] = 0
            if len(self._blocked) == self._request["most_blocked"]:
                continue
            found = obstacle(path, versions[0].kind, self._kind_at, self._is_writable) if versions else None
            if action == "g" and holds_commits(os.path.join(os.fsencode(os.environ["AGENT_WORKSPACE"]), path)):
                found = path, "g"
            if found is not None:
                place, kind = found
                self._blocked.setdefault(place, [index, path.count(b"/") - place.count(b"/"), kind])

    def _kind_at(self, path: "bytes") -> "str":
        status = self._status(path)
        return kind_of(status.st_mode) if isinstance(status, os.stat_result) else ""

    def _is_writable(self, folder: "bytes") -> "bool":
        return os.access(folder or b".", os.W_OK | os.X_OK, dir_fd=self._folders.descriptor(b""))

    def _lines(self) -> "list[str]":
        unseen = [index for index, is_unseen in enumerate(self._unseen) if is_unseen]
        lines = []
        for label, rows in (
            ("differing", [found.row(index) for index, found in sorted(self._differing.items())]),
            ("new", [found.row(_text(path)) for path, found in self._new.items()]),
            ("pruned", [_text(path) for path in self._pruned]),
            ("removed", _ranges(self._removed)),
            ("kept", _ranges(self._kept)),
            ("failed", self._failed),
            ("blocked", list(self._blocked.values())),
            ("unseen", _ranges(unseen)),
        ):
            lines += self._cut(label, rows)
        counts = [len(self._differing), len(self._new), len(self._pruned), len(self._removed), len(self._kept)]
        counts += [len(self._failed), len(self._blocked), self._missing, self._unlisted]
        counts += [int(time.time()), len(unseen) + self._unseen_folders]  # noqa: TID251
        lines.append(_json([self._request["word"], "done", counts]))
        return lines

    def _cut(self, label: "str", rows: "list[Any]") -> "list[str]":
        """Return the rows in lines that are not too long."""
        head = _json([self._request["word"], label])[:-1] + ",["
        lines = []  # type: list[str]
        for row in map(_json, rows):
            if lines and len(lines[-1]) + len(row) < _LONGEST_LINE:
                lines[-1] += "," + row
            else:
                lines.append(head + row)
        return [line + "]]" for line in lines]


def _ranges(indexes: "list[int]") -> "list[Any]":
    """Return ascending indexes as pairs of a first and a last one."""
    pairs = []  # type: list[Any]
    for index in indexes:
        if pairs and pairs[-1][1] == index - 1:
            pairs[-1][1] = index
        else:
            pairs.append([index, index])
    return pairs


def _json(value: "Any") -> "str":
    return json.dumps(value, separators=(",", ":"))


def main() -> None:
    """Read the list beside this file, look, and print the report, or keep a long one beside the copies."""
    own = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(own, "look.json"), encoding="ascii") as file:
        request = json.load(file)
    shutil.rmtree(os.path.join(own, "syncd"), ignore_errors=True)  # what is imported is in memory
    for name in ("look.json", os.path.basename(__file__)):
        with contextlib.suppress(OSError):  # then the export holds it too, which does no harm
            os.unlink(os.path.join(own, name))
    signal.signal(signal.SIGALRM, _Alarm.ring)
    _Alarm.is_usable = True
    top = os.open(os.environ["AGENT_WORKSPACE"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    report = "".join(line + "\n" for line in _Look(request, top, own).run())
    if len(report) > _LONGEST_LOG:
        content = report.encode("ascii")
        with contextlib.suppress(OSError):  # else the log may take it
            with open(os.path.join(own, "report.json"), "xb") as file:
                file.write(content)
            report = _json([request["word"], "report", len(content), hashlib.sha256(content).hexdigest()]) + "\n"
    sys.stdout.write(report)


if __name__ == "__main__":
    main()
