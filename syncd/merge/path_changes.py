"""Changes paths of the workspace, first in temporary files, then by renames.

Every step goes from its directory's descriptor and follows no link. All that takes space is done in `prepare`, before
the first visible change. `make` then

1. lets the owner write in the directories that are changed or removed,
2. removes what gives way, the deepest first: deletions, and entries that a rename cannot replace,
3. creates directories, the top ones first,
4. renames the temporary files to their names, after a last look at what is there,
5. sets the modes of directories, the deepest first, as one may become read-only.

A path that is not as it was seen is left as it is. Owners, extended attributes and the times of directories are not
kept. The gap between the last look and the rename is a few microseconds; where nothing is to be replaced there is none.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from syncd.merge.file_copy import digest_of
from syncd.merge.writes import OTHER, PERMISSIONS, by_depth, opened
from syncd.model.entry import Entry, Kind, Stamp
from syncd.selection import safe_open

# The way to a path is gone, or leads through a link or a file.
_NO_WAY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
# The path became something that cannot be replaced or removed, or is a mount point.
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.EBUSY})
# The file system has no hard links, or not this one.
_NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_OPEN = 64
_FLUSHED_TOGETHER = 8
NO_CONTENT = hashlib.sha256().digest()


class Place(Struct):
    """The path that is being worked on."""

    path: str = ""


class Step(Struct, frozen=True):
    """The change of one path from what was seen there. `fill` writes a file's content, and returns its digest.

    `number` names the temporary file. An entry in `becomes` that has a stamp was there before: it gets its time back,
    and all bits of its mode. A step that is `implied` creates a directory that is not needed without content.
    """

    number: int
    path: str
    was: Entry | None
    becomes: Entry | None
    fill: Callable[[int], bytes] = lambda _: NO_CONTENT
    implied: bool = False

    @property
    def was_directory(self) -> bool:
        """True if a directory was there."""
        return self.was is not None and self.was.is_directory

    @property
    def becomes_directory(self) -> bool:
        """True if a directory is to be there."""
        return self.becomes is not None and self.becomes.is_directory

    @property
    def clears(self) -> bool:
        """True if what is there has to be removed by itself, as no rename can replace it."""
        return self.was is not None and (self.becomes is None or self.was_directory != self.becomes_directory)

    @property
    def creates_directory(self) -> bool:
        """True if a directory is to be created."""
        return self.becomes_directory and not self.was_directory

    @property
    def places(self) -> bool:
        """True if a temporary file or link is renamed."""
        return self.becomes is not None and not self.becomes_directory


def draft_name(token: str, number: int) -> str:
    """Return the name of a temporary file, which is short, so that it fits wherever the file's own name does."""
    return f".syncd-{token}-{number}"


def look(cursor: safe_open.DirCursor, path: str) -> Entry | None:
    """Return what is at a path, without a digest; OTHER also for what is behind a link or a file. Raises `OSError`."""
    try:
        parent, name = cursor.parent_of(path)
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        target = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(status.st_mode) else ""
    except OSError as failure:
        if failure.errno == errno.ENOENT:
            return None
        if failure.errno in _NO_WAY:
            return OTHER
        raise
    return _local_entry(status, target)


def look_with_digest(cursor: safe_open.DirCursor, path: str) -> Entry | None:
    """Return what is at a path, with a file's digest; None also for what is behind a link or a file.

    A file that changes while it is read counts as something else. Raises `OSError`.
    """
    try:
        cursor.parent_of(path)
    except OSError as failure:
        if failure.errno in _NO_WAY:
            return None
        raise
    entry = look(cursor, path)
    if entry is None or entry.kind is not Kind.FILE:
        return entry
    parent, name = cursor.parent_of(path)
    descriptor, status = safe_open.open_file(name, parent)
    try:
        digest = digest_of(descriptor)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    read = _local_entry(status, "", digest)
    return read if read == _local_entry(after, "", digest) else OTHER


def _local_entry(status: os.stat_result, target: str, digest: bytes = b"") -> Entry:
    stamp = Stamp(status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISREG(status.st_mode):
        return Entry(Kind.FILE, mode, size_bytes=status.st_size, digest=digest, stamp=stamp)
    if stat.S_ISDIR(status.st_mode):
        return Entry(Kind.DIRECTORY, mode, stamp=stamp)
    if stat.S_ISLNK(status.st_mode):
        return Entry(Kind.SYMLINK, target=target, stamp=stamp)
    return OTHER


def set_directory_mode(cursor: safe_open.DirCursor, path: str, mode: int) -> None:
    """Set the mode of a directory, also of one that cannot be opened for reading. Raises `OSError`."""
    parent, name = cursor.parent_of(path)
    try:
        descriptor = safe_open.open_directory(name, parent)
    except PermissionError:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{descriptor}", mode)  # fchmod(2) does not take such a descriptor
        finally:
            os.close(descriptor)
        return
    try:
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class PathChanges:
    """The steps of one write or undo. `at` is told which path is being changed, for a message."""

    def __init__(self, workspace: str, token: str, steps: Sequence[Step], at: Place) -> None:
        self.left: set[str] = set()
        self._at = at
        self.digests: dict[str, bytes] = {}
        self._workspace = workspace
        self._token = token
        self._steps = sorted(steps, key=lambda step: by_depth(step.path))
        self._drafts: dict[str, str] = {}
        self._touched: set[str] = set()
        self._relinked: set[tuple[int, int]] = set()

    def prepare(self) -> None:
        """Write and flush the temporary files, whose digests are then known. Raises `OSError`."""
        usable = self._usable_folders()
        with self._cursor() as cursor, _Unflushed() as unflushed:
            for step in self._steps:
                if step.becomes is not None and step.places:
                    self._at.path = step.path
                    parent, name = self._draft(cursor, step, usable)
                    self._write_draft(step, step.becomes, parent, name, unflushed)
            unflushed.flush()

    def make(self) -> None:
        """Change the workspace; `left` are then the paths that changed since they were seen. Raises `OSError`."""
        with self._cursor() as cursor, self._cursor() as drafts:
            for step in self._steps:
                if step.was is not None and step.was.is_directory and step.was.mode != opened(step.was.mode):
                    self._attempt(step, lambda s: set_directory_mode(cursor, s.path, opened(_mode(s.was))))
            for step in reversed(self._steps):
                if step.clears and step.path not in self.left:
                    self._attempt(step, lambda s: self._clear(cursor, s))
            for step in self._steps:
                if step.creates_directory and step.path not in self.left:
                    self._attempt(step, lambda s: self._create_directory(cursor, s))
            for step in self._steps:
                if step.places and step.path not in self.left:
                    self._attempt(step, lambda s: self._place(cursor, drafts, s))
            for path in sorted(self._drafts):
                self._at.path = path
                _remove(drafts, self._drafts.pop(path))
            for step in reversed(self._steps):
                if step.implied and step.path not in self.left:
                    self._attempt(step, lambda s: self._remove_if_empty(cursor, s))
            self._flush_folders(cursor)
            for step in reversed(self._steps):
                self._attempt(step, lambda s: self._set_mode(cursor, s))

    def _cursor(self) -> safe_open.DirCursor:
        return safe_open.DirCursor(safe_open.open_workspace(self._workspace))

    def _attempt(self, step: Step, action: Callable[[Step], bool | None]) -> None:
        """Do a part of a step; if the path or the way to it has changed, it is left."""
        self._at.path = step.path
        try:
            if action(step) is False:
                self.left.add(step.path)
        except OSError as failure:
            if failure.errno not in _TAKEN and failure.errno not in _NO_WAY:
                raise
            self.left.add(step.path)

    # -- temporary files

    def _usable_folders(self) -> dict[str, bool]:
        """For each directory that the steps change: True if temporary files can be in it now."""
        return {
            step.path: step.was_directory and step.becomes_directory and opened(_mode(step.was)) == _mode(step.was)
            for step in self._steps
            if step.was_directory or step.becomes_directory
        }

    def _draft(self, cursor: safe_open.DirCursor, step: Step, usable: dict[str, bool]) -> tuple[int, str]:
        """Return directory and name of the temporary file.

        It is in the path's directory, or, if that is yet to be made, in the nearest that is there: it will be on the
        same file system, so that the rename crosses none.
        """
        name = draft_name(self._token, step.number)
        folder = step.path.rpartition("/")[0]
        while True:
            path = f"{folder}/{name}" if folder else name
            above = folder
            while above and usable.get(above, True):
                above = above.rpartition("/")[0]
            if not above:  # neither the folder nor one above it is made or removed
                try:
                    parent, _ = cursor.parent_of(path)
                except OSError as failure:
                    if not folder or failure.errno not in _NO_WAY:
                        raise
                else:
                    self._drafts[step.path] = path
                    return parent, name
            folder = folder.rpartition("/")[0]

    def _write_draft(self, step: Step, entry: Entry, parent: int, name: str, unflushed: _Unflushed) -> None:
        restored = entry.stamp
        if entry.kind is Kind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=parent)
            if restored is not None:
                os.utime(name, ns=(restored.mtime_ns,) * 2, dir_fd=parent, follow_symlinks=False)
            return
        descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        unflushed.add(descriptor)
        digest = step.fill(descriptor)
        if entry.digest not in (b"", digest):
            self.left.add(step.path)  # the kept bytes are damaged: what is there now is better
            return
        self.digests[step.path] = digest
        if restored is not None:
            os.utime(descriptor, ns=(restored.mtime_ns,) * 2)
        os.fchmod(descriptor, entry.mode)  # after the last write, which drops set-id bits
        unflushed.flush_some()

    # -- visible changes

    def _clear(self, cursor: safe_open.DirCursor, step: Step) -> bool:
        parent, name = cursor.parent_of(step.path)
        if not self._is_as_seen(step.was, parent, name):
            return False
        if step.was_directory:
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
        self._touch(step.path)
        return True

    def _create_directory(self, cursor: safe_open.DirCursor, step: Step) -> None:
        parent, name = cursor.parent_of(step.path)
        os.mkdir(name, stat.S_IRWXU, dir_fd=parent)
        self._touch(step.path)

    def _place(self, cursor: safe_open.DirCursor, drafts: safe_open.DirCursor, step: Step) -> bool:
        parent, name = cursor.parent_of(step.path)
        if step.was is not None and not step.clears and not self._is_as_seen(step.was, parent, name):
            return False
        draft_folder, draft = drafts.parent_of(self._drafts[step.path])
        self._touch(step.path)
        self._touch(self._drafts[step.path])
        if step.was is None or step.clears:
            if not _rename_to_new(draft_folder, draft, parent, name):
                return False
        else:
            os.replace(draft, name, src_dir_fd=draft_folder, dst_dir_fd=parent)
        del self._drafts[step.path]
        return True

    def _remove_if_empty(self, cursor: safe_open.DirCursor, step: Step) -> bool:
        """Remove a directory that was made for files which were left; True if it is not empty."""
        parent, name = cursor.parent_of(step.path)
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as failure:
            if failure.errno not in _TAKEN:
                raise
            return True
        return False

    def _set_mode(self, cursor: safe_open.DirCursor, step: Step) -> None:
        if step.was_directory and (step.path in self.left or not step.becomes):
            if step.path in self.left and step.was and step.was.mode != opened(step.was.mode):
                set_directory_mode(cursor, step.path, step.was.mode)
        elif step.becomes is not None and step.becomes.is_directory and step.path not in self.left:
            mode = step.becomes.mode
            now = look(cursor, step.path)
            if step.becomes.stamp is None and now is not None:
                mode = (now.mode & ~PERMISSIONS) | (mode & PERMISSIONS)  # a new one inherits the set-group-id bit
            if now is None or not now.is_directory:
                self.left.add(step.path)
            elif now.mode != mode:
                set_directory_mode(cursor, step.path, mode)

    def _is_as_seen(self, seen: Entry | None, parent: int, name: str) -> bool:
        """True if something is still as it was seen; the last look before it is replaced."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if seen is None or seen.is_directory:
            return seen is not None and stat.S_ISDIR(status.st_mode)
        target = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(status.st_mode) else ""
        now = _local_entry(status, target, seen.digest)
        inode = (status.st_dev, status.st_ino)
        if inode in self._relinked and now.stamp is not None and seen.stamp is not None:
            # The removal of another name of the same file changed its ctime.
            now = replace(now, stamp=replace(now.stamp, ctime_ns=seen.stamp.ctime_ns))
        if now != seen:
            return False
        if status.st_nlink > 1:
            self._relinked.add(inode)
        return True

    def _touch(self, path: str) -> None:
        self._touched.add(path.rpartition("/")[0])

    def _flush_folders(self, cursor: safe_open.DirCursor) -> None:
        for folder in sorted(self._touched, key=by_depth):
            self._at.path = folder
            try:
                descriptor, _ = cursor.parent_of(f"{folder}/." if folder else ".")
            except OSError as failure:
                if failure.errno not in _NO_WAY:
                    raise
                continue  # it was removed with what was in it
            os.fsync(descriptor)


class _Unflushed:
    """New files, flushed in batches."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def add(self, descriptor: int) -> None:
        self._descriptors.append(descriptor)

    def flush_some(self) -> None:
        """Flush the files once there are many."""
        if len(self._descriptors) >= _MOST_OPEN:
            self.flush()

    def flush(self) -> None:
        """Flush the files. Raises `OSError`."""
        if len(self._descriptors) < _FLUSHED_TOGETHER:
            for descriptor in self._descriptors:
                os.fsync(descriptor)
        else:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only many files need it

            # The file system commits for all that wait at once: a fifth of the time of one after another.
            with ThreadPoolExecutor(_FLUSHED_TOGETHER) as pool:
                list(pool.map(os.fsync, self._descriptors))
        self._close()

    def _close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def remove_drafts(cursor: safe_open.DirCursor, token: str, paths: Iterable[tuple[int, str]]) -> None:
    """Remove the temporary files of a write that was killed, by the numbers and paths of its steps.

    One is in the path's directory or above it. Raises `OSError`.
    """
    places = set()
    for number, path in paths:
        folder = path
        while folder:
            folder = folder.rpartition("/")[0]
            name = draft_name(token, number)
            places.add(f"{folder}/{name}" if folder else name)
    for place in sorted(places, key=by_depth):
        _remove(cursor, place)


def _remove(cursor: safe_open.DirCursor, path: str) -> None:
    """Remove a temporary file, if it is there."""
    try:
        parent, name = cursor.parent_of(path)
        os.unlink(name, dir_fd=parent)
    except OSError as failure:
        if failure.errno not in _NO_WAY:
            raise


def _rename_to_new(draft_folder: int, draft: str, parent: int, name: str) -> bool:
    """Rename a temporary file, unless there is something of the new name: then return False."""
    try:
        os.link(draft, name, src_dir_fd=draft_folder, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as failure:
        if failure.errno not in _NO_LINKS:
            raise
    else:
        os.unlink(draft, dir_fd=draft_folder)
        return True
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(draft, name, src_dir_fd=draft_folder, dst_dir_fd=parent)
        return True
    return False


def _mode(entry: Entry | None) -> int:
    return 0 if entry is None else entry.mode
