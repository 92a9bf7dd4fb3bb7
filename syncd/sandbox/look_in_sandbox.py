"""The program that looks at the workspace in the sandbox.

It compares the paths of the request with their versions, copies what differs beside itself, and removes what is to be
removed and still is as a version; then it finds what keeps others from being extracted. It opens paths through
directory descriptors and follows no link below the workspace. Everything is looked at and copied before anything is
removed.

Each of its parts has a share of its time, and is ended in its middle when that is over: what was not looked at by then
is reported as such. What changed at home comes first, a large file after all smaller ones.
"""

import base64
import errno
import hashlib
import os
import re
import stat
import sys
import time
from collections import deque
from itertools import groupby
from typing import Any

from syncd.sandbox.program_in_sandbox import (
    BLOCK,
    DIGEST_BYTES,
    FILE,
    SPARE_BYTES,
    Alarm,
    bytes_of,
    paths_of,
    run,
    stamp,
    text_of,
    versions_of,
)

# With Linux's O_PATH search permission is enough.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# With these nothing is at the path, or something behind a link or a file that took a directory's place.
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_LARGE_BYTES = 1 << 20  # such a file is compared last
_LONGEST_PATH = 3840  # home takes no longer one, so a folder of such a path is not entered
_MOST_TEXT_BYTES = 32 << 20  # of all new paths with their targets, and of those not entered, in the report
_LARGEST_REFERENCES = 64 << 20
# The shares of its time: until when it compares, searches and copies. The rest is for removals and the report.
_COMPARES, _SEARCHES, _COPIES = 0.5, 0.75, 0.9
# The outcomes of the request's paths, by their letters in the report.
_SAME, _DIFFERS, _REMOVED, _KEPT, _FAILED, _MISSING, _BLOCKED, _UNSEEN = b"=drkfmbu"


class _SeenEntry:
    """The entry at one path."""

    __slots__ = ("copy", "digest", "kind", "mode", "mtime", "size", "target", "unstable")

    def __init__(self, kind: "str", status: "os.stat_result | None" = None, target: "bytes" = b"") -> None:
        self.kind = kind
        self.mode = self.size = self.mtime = 0
        self.target = target
        self.digest = b""
        self.copy = -1
        self.unstable = False
        if status is not None:
            self.take(status)

    def take(self, status: "os.stat_result") -> None:
        self.mode, self.size, self.mtime = status.st_mode & 0o777, status.st_size, status.st_mtime_ns // 10**9

    def changes(self) -> None:
        """Note that the file changes while it is looked at."""
        self.unstable, self.digest = True, b""

    def same_as_any(self, versions: "list[Any]") -> "bool":
        """Return True if the entry is as one of the versions; a file's digest must be known."""
        kind = "x" if self.kind == "f" and self.mode & stat.S_IXUSR else self.kind
        for version in versions:
            if kind == version.kind and (
                kind == "d"
                or (kind == "l" and self.target == version.target)
                or (self.digest and self.size == version.size and self.digest[:DIGEST_BYTES] == version.digest)
            ):
                return True
        return False

    def row(self) -> "list[Any]":
        """Return the row of the report; only a link's has a target."""
        digest = base64.b64encode(self.digest).decode("ascii")
        row = [self.kind, self.mode, self.size, self.mtime, digest, self.copy, self.unstable]
        return [*row, text_of(self.target)] if self.kind == "l" else row


def _hash(descriptor: "int", size: "int", write: "Any" = None) -> "tuple[bytes, int]":
    """Return the digest of an open file and its length, at most one byte more than `size`: a growing file ends too."""
    sha256 = hashlib.sha256()
    left = size + 1
    while left > 0:
        block = os.read(descriptor, min(BLOCK, left))
        if not block:
            break
        sha256.update(block)
        left -= len(block)
        if write is not None:
            write(block)
    return sha256.digest(), size + 1 - left


class _Look:
    """One look, by the request."""

    def __init__(self, request: "dict[str, Any]", top: "int", own: "str") -> None:
        self._request = request
        self._own = own
        self._top = self._open = top
        self._open_path = b""  # of the folder that was used last, and stays open: paths come folder by folder
        self._began_s = time.monotonic()  # noqa: TID251 - no clock of syncd's is here
        self._paths = paths_of(request)
        self._outcomes = bytearray(_SAME if action == "e" else _UNSEEN for action in request["actions"])
        self._differing = {}  # type: dict[int, _SeenEntry]
        self._failed = {}  # type: dict[int, str]
        self._blocked = {}  # type: dict[bytes, list[Any]]
        self._new = {}  # type: dict[bytes, _SeenEntry]
        self._text_bytes = 0
        self._pruned = []  # type: list[bytes]
        self._unlisted = self._unsearched = 0
        # Each with its size, a number that keeps the order, its index if it is none of the new ones, and its versions.
        self._to_copy = []  # type: list[tuple[int, int, int, bytes, _SeenEntry, list[Any]]]
        self._copied = 0

    def run(self) -> "dict[str, Any]":
        """Do all that is asked, and return the report."""
        removals = [item for item in self._items() if item[1] == "r"]
        Alarm.within(self._left_s(_COMPARES if self._request["find_new"] else _SEARCHES), self._compare_all)
        if self._request["find_new"]:
            self._find_new()
        Alarm.within(self._left_s(_COPIES), self._copy_all)
        for index, _, path, versions in removals:
            self._close_folder()  # a directory that was moved away meanwhile is not the workspace's any more
            self._outcomes[index] = self._remove(index, path, versions)
        Alarm.within(self._left_s(1.0), self._check_places)
        self._close_folder()
        return {
            "outcomes": [[chr(letter), sum(1 for _ in same)] for letter, same in groupby(self._outcomes)],
            "differing": [found.row() for _, found in sorted(self._differing.items())],
            "failed": [reason for _, reason in sorted(self._failed.items())],
            "blocked": list(self._blocked.values()),
            "new": {text_of(path): found.row() for path, found in self._new.items()},
            "pruned": [text_of(path) for path in self._pruned],
            "unlisted": self._unlisted,
            "unsearched": self._unsearched,
            "ended_s": int(time.time()),  # noqa: TID251
        }

    def _left_s(self, share: "float") -> "float":
        """Return the seconds until so much of the time is over."""
        return float(self._began_s + share * self._request["within_s"] - time.monotonic())  # noqa: TID251

    def _items(self) -> "Any":
        """Yield each item's index, action, path and versions."""
        items = zip(self._request["actions"], self._paths, versions_of(self._request))  # noqa: B905
        return ((index, action, path, versions) for index, (action, path, versions) in enumerate(items))

    def _compare_all(self) -> None:
        for letters in ("fF", "cCe"):
            large = []
            for index, action, path, versions in self._items():
                if action == "e" and action in letters:
                    self._outcomes[index] = _SAME if self._kind_at(path) else _MISSING
                elif action in letters and not self._compare(index, path, versions, action, _LARGE_BYTES):
                    large.append((max(version.size for version in versions), index, action, path, versions))
            for _, index, action, path, versions in sorted(large, key=lambda item: item[:2]):
                self._compare(index, path, versions, action, sys.maxsize)

    def _folder(self, path: "bytes") -> "int":
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

    def _kind_at(self, path: "bytes") -> "str":
        """Return the kind of what is at a path: "" if nothing is, "?" if that cannot be told."""
        folder, _, name = path.rpartition(b"/")
        try:
            return _kind_of(os.stat(name, dir_fd=self._folder(folder), follow_symlinks=False).st_mode)
        except OSError as failure:
            return "" if failure.errno in _NOTHING else "?"

    def _seen(
        self, path: "bytes", versions: "list[Any]", most: "int" = sys.maxsize
    ) -> "tuple[_SeenEntry, os.stat_result | None]":
        """Return the entry at a path, with its digest if the size is one of the versions' and no more than `most`.

        Raises `OSError`.
        """
        folder, _, name = path.rpartition(b"/")
        try:
            parent = self._folder(folder)
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            kind = _kind_of(status.st_mode)
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
        descriptor = os.open(name, FILE, dir_fd=parent)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            found.digest, length = _hash(descriptor, before.st_size)
            if length != before.st_size or stamp(os.fstat(descriptor)) != stamp(before):
                found.changes()
        finally:
            os.close(descriptor)
        found.take(before)
        return before

    def _compare(self, index: "int", path: "bytes", versions: "list[Any]", action: "str", most: "int") -> "bool":
        """Compare one item, and return True, unless a file with more than so many bytes is to be read for that."""
        # With a capital letter, it is no difference if nothing is there.
        try:
            found, _ = self._seen(path, versions, most)
        except OSError:
            found = _SeenEntry("?")
        if found.kind == "f" and found.size > most and any(version.size == found.size for version in versions):
            return False
        differs = not found.same_as_any(versions) and (found.kind or (versions and not action.isupper()))
        if differs:
            self._differing[index] = found
            if action in "fF" and found.kind == "f":
                self._to_copy.append((found.size, len(self._to_copy), index, path, found, versions))
        self._outcomes[index] = _DIFFERS if differs else _SAME
        return True

    def _find_new(self) -> None:
        """List what is beyond the items, a directory before what is in it."""
        folders = deque([b""])
        Alarm.within(self._left_s(_SEARCHES), lambda: self._search(folders))
        for folder in folders:
            self._unsearched += 1
            self._prune(folder)

    def _search(self, folders: "deque[bytes]") -> None:
        """Search these folders and those in them; a folder leaves the queue once it was searched."""
        items = set(self._paths)
        pruned = {bytes_of(name) for name in self._request["pruned"]}
        repository = re.compile(self._request["repository"].encode("ascii"))
        own = os.stat(self._own)
        while folders:
            folder = folders[0]
            try:
                names = self._names(folder)
            except OSError as failure:
                names = []
                if failure.errno not in _NOTHING:
                    self._prune(folder)
            for name in names:
                path = folder + b"/" + name if folder else name
                if repository.search(name):
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
                    self._unsearched += 1
                    self._prune(path)
            folders.popleft()

    def _prune(self, path: "bytes") -> None:
        self._text_bytes += len(text_of(path))
        if len(self._pruned) < self._request["most_new"] and self._text_bytes <= _MOST_TEXT_BYTES:
            self._pruned.append(path or b".")
        else:
            self._unlisted += 1

    def _names(self, folder: "bytes") -> "list[bytes]":
        listed = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder(folder))
        try:
            return sorted(os.fsencode(name) for name in os.listdir(listed))
        finally:
            os.close(listed)

    def _add_new(self, path: "bytes", found: "_SeenEntry") -> None:
        self._text_bytes += len(text_of(path)) + len(text_of(found.target))
        if len(self._new) >= self._request["most_new"] or self._text_bytes > _MOST_TEXT_BYTES:
            self._unlisted += 1
            return
        self._new[path] = found
        if found.kind == "f":
            self._to_copy.append((found.size, len(self._to_copy), -1, path, found, []))

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
        for _, _, index, path, found, versions in sorted(self._to_copy, key=lambda item: item[:2]):
            try:
                left -= self._copy(path, found, os.path.join(copies, str(self._copied)), left)
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

    def _copy(self, path: "bytes", found: "_SeenEntry", to: "str", left: "int") -> "int":
        """Copy a file that does not change meanwhile, and return the length of the copy. Raises `OSError`."""
        folder, _, name = path.rpartition(b"/")
        source = os.open(name, FILE, dir_fd=self._folder(folder))
        try:
            before = os.fstat(source)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            disk = os.statvfs(self._own)
            if before.st_size > min(left, disk.f_bavail * disk.f_frsize - SPARE_BYTES):
                return 0
            copied, unstable = b"", True
            try:
                with open(os.open(to, _COPY, 0o600), "wb", buffering=BLOCK) as file:
                    copied, length = _hash(source, before.st_size, file.write)
                os.lseek(source, 0, os.SEEK_SET)
                again, length_again = _hash(source, before.st_size)
                # By name too: an editor that replaces the file leaves the old one as it was.
                after = os.stat(name, dir_fd=self._folder(folder), follow_symlinks=False)
                stamps = {stamp(before), stamp(os.fstat(source)), stamp(after)}
                unstable = copied != again or {length, length_again} != {before.st_size} or len(stamps) > 1
            finally:
                if unstable:
                    os.unlink(to)
            if unstable:
                found.changes()
                return 0
        finally:
            os.close(source)
        found.take(before)
        found.digest, found.unstable = copied, False
        found.copy, self._copied = self._copied, self._copied + 1
        return length

    def _is_too_late(self) -> "bool":
        """Return True if no one waits for this look any more: it began late, or takes long."""
        not_after_s = self._request["not_after_s"]  # by this machine's clock, 0 if it is not known
        if not_after_s and time.time() > not_after_s:  # noqa: TID251
            return True
        return self._left_s(1.0) < 0

    def _remove(self, index: "int", path: "bytes", versions: "list[Any]") -> "int":
        """Remove what is at a path if it is as a version, and return the outcome."""
        folder, _, name = path.rpartition(b"/")
        try:
            if self._is_too_late() and not self._kind_at(path):
                return _REMOVED
            seen = Alarm.within(self._left_s(1.0), lambda: self._seen(path, versions))
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
                if stamp(os.stat(name, dir_fd=parent, follow_symlinks=False)) == stamp(status):
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
        for index, action, path, versions in self._items():
            if action not in "pg":
                continue
            self._outcomes[index] = _SAME
            if len(self._blocked) == self._request["most_blocked"]:
                continue
            found = self._obstacle(path, versions[0].kind) if versions else None
            if action == "g" and _holds_commits(os.path.join(os.fsencode(os.environ["AGENT_WORKSPACE"]), path)):
                found = path, "g"
            if found is not None and found[0] not in self._blocked:
                place, kind = found
                self._blocked[place] = [path.count(b"/") - place.count(b"/"), kind]
                self._outcomes[index] = _BLOCKED

    def _obstacle(self, path: "bytes", kind: "str") -> "tuple[bytes, str] | None":
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
    def _leads_out(path: "bytes") -> "bool":
        top = os.path.realpath(os.fsencode(os.environ["AGENT_WORKSPACE"]))
        folder = os.path.dirname(os.path.join(top, path))
        target = os.path.normpath(os.path.join(folder, os.readlink(os.path.join(top, path))))
        # A link of ours, which may lead through another one that leads out, is not in its own way.
        return not any(each.startswith(top + b"/") for each in (target, os.path.realpath(target)))


def _kind_of(mode: "int") -> "str":
    """Return the kind of what has this mode: "d", "f", "l", or "o" for all others."""
    return {stat.S_IFDIR: "d", stat.S_IFREG: "f", stat.S_IFLNK: "l"}.get(stat.S_IFMT(mode), "o")


def _holds_commits(folder: "bytes") -> "bool":
    """Return True if a reference of the repository may lead to a commit that syncd did not make.

    An archive that holds another repository would take the place of all of them.
    """
    if not os.path.lexists(os.path.join(folder, b"HEAD")):
        return False
    ours = {_content(folder, b"refs/syncd/home").strip()}
    ours.update(re.findall(rb"[0-9a-f]{40}", _content(folder, b"syncd/state")))
    found = re.findall(rb"(?m)^\^?([0-9a-f]{40,64})\b", _content(folder, b"packed-refs"))
    for part in (b"refs", b"worktrees"):
        for base, _, names in os.walk(os.path.join(folder, part)):
            found += [_content(base, name).strip() for name in names if part == b"refs" or name == b"HEAD"]
    tips = {tip for tip in [*found, _content(folder, b"HEAD").strip()] if not tip.startswith(b"ref: ")}
    return not tips <= ours or os.path.lexists(os.path.join(folder, b"reftable"))


def _content(folder: "bytes", name: "bytes") -> "bytes":
    """Return the content of a small file; empty if there is none."""
    try:
        descriptor = os.open(os.path.join(folder, name), FILE)
    except FileNotFoundError:
        return b""
    except OSError:
        return b"unreadable"
    with open(descriptor, "rb") as file:
        return file.read(_LARGEST_REFERENCES)


def look(request: "dict[str, Any]", own: "str") -> "dict[str, Any]":
    """Look by the request, and return the report. Raises `OSError` if there is no workspace."""
    top = os.open(os.environ["AGENT_WORKSPACE"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return _Look(request, top, own).run()


if __name__ == "__main__":
    run(__file__, look)
