"""Changes paths of the workspace, first in temporary files, then by renames.

A row of a plan is a `PathChange`; `decide` compares what it saw at the path with what is there now.

Every step goes from its directory's descriptor and follows no link. All that takes space is done in `prepare`, before
the first visible change. `make` then

1. removes what gives way, the deepest first: deletions, and entries that a rename cannot replace,
2. makes directories with their modes, the top ones first (one that may not be written to was removed empty),
3. renames the temporary files to their names, after a last look at what is there.

A path that is not as it was seen is left as it is, and so is the second of two names of one file. A directory that this
person may not write to is an error. Owners, extended attributes and the times of directories are not kept, nor are the
holes of a sparse file. The gap between the last look and the rename is a few microseconds; where nothing is to be
replaced there is none.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from enum import Enum, StrEnum
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from syncd.core import safe_open
from syncd.core.durable_file import flush_together
from syncd.core.process import original_umask
from syncd.model.entry import ABSENT, ALL_BITS, Entry, Kind, mode_at_home
from syncd.model.manifest import archive_order, directories_above
from syncd.scan.file_reader import stamp_of

# The way to a path is gone, or leads through a link or a file.
_NO_WAY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
# The path became something that cannot be replaced or removed, or is a mount point.
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.EBUSY})
# The file system has no hard links, or not this one.
_NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 1 << 20
_MOST_OPEN = 64

OTHER = Entry(Kind.OTHER)  # nothing is written there


class JournalPhase(StrEnum):
    """The progress of a write: until it is done, the workspace may be partly changed."""

    CHANGING = "changing"
    DONE = "done"


class PathChange(Struct, frozen=True, array_like=True):
    """One path that a write or an undo changes: what was seen there, and what it becomes; ABSENT: nothing.

    A file has a digest: one with another stamp and the same content has not changed. A directory is deleted
    only by a row of its own, and only if it is empty by then.

    `after` has a kind, and a target or permission bits: set-id and sticky bits stay as they are here. But what has a
    stamp was there before: it gets its time back, and all bits of its mode. `content` is the path of the file, on
    any file system, that holds a new file's bytes. It must not change meanwhile.
    """

    path: str
    before: Entry
    after: Entry
    content: str = ""

    @property
    def clears(self) -> bool:
        """True if what is there has to be removed by itself, as no rename can replace it."""
        if Kind.ABSENT in (self.before.kind, self.after.kind):
            return self.before.kind is not Kind.ABSENT
        return self.before.is_directory != self.after.is_directory

    @property
    def places(self) -> bool:
        """True if a temporary file or link is renamed."""
        return self.after.kind in (Kind.FILE, Kind.SYMLINK)


class WriteDecision(Enum):
    """The decision about one path of a write or an undo."""

    NOTHING = "it is already as it is to become"
    CHANGE = "it is as it was seen"
    LEAVE = "it was changed since"


def check_plan(plan: Sequence[PathChange]) -> None:
    """Raise `ValueError` if the plan cannot be meant: a caller's error, not a user's."""
    for change in plan:
        if "\0" in change.path or any(part in ("", ".", "..") for part in change.path.split("/")):
            raise ValueError(f"{change.path!r} is no path inside of the workspace")
        if any(entry.kind is Kind.FILE and not entry.digest for entry in (change.before, change.after)):
            raise ValueError(f"{change.path!r} has no digest")


def opened(mode: int) -> int:
    """Return the mode with which a directory is made: its owner can take that back."""
    return mode | stat.S_IRWXU


def decide(change: PathChange, now: Entry, phase: JournalPhase) -> WriteDecision:
    """Return what a write, or an undo, whose row is turned round, does to a path. `now` has the digest of a file.

    A phase of CHANGING means that the process was killed in a write or an undo, so that the path may be half-way.
    """
    before, after = change.before, change.after
    if now.kind in (Kind.OTHER, Kind.UNREAD):
        return WriteDecision.LEAVE
    if _matches(now, after) and not (now.is_directory and (now.mode ^ after.mode) & ALL_BITS):
        return WriteDecision.NOTHING
    if _matches(now, before):
        return WriteDecision.CHANGE
    # For a moment nothing is there, where a directory gives way to something else, or the other way round; and a
    # directory that was made has not got its mode yet.
    crosses = after.is_directory != before.is_directory and Kind.ABSENT not in (after.kind, before.kind)
    is_half_way = crosses if now.kind is Kind.ABSENT else now.is_directory and _matches(now, after)
    return WriteDecision.CHANGE if is_half_way and phase is JournalPhase.CHANGING else WriteDecision.LEAVE


def _matches(now: Entry, entry: Entry) -> bool:
    if now.kind is not entry.kind or now.kind is Kind.ABSENT:
        return now.kind is entry.kind
    if now.kind is Kind.SYMLINK:
        return now.target == entry.target
    mode, bits = now.mode & ALL_BITS, entry.mode & ALL_BITS
    if now.is_directory:
        return mode in (stat.S_IRWXU, bits)  # it is made with the first
    return now.digest == entry.digest and mode == bits


# -- what is there now, and what is to change


class Place(Struct):
    """The path that is being worked on."""

    path: str = ""


def _draft_prefix(token: str) -> str:
    """Return what the names of a write's temporary files begin with."""
    return f".syncd-{token}-"


def draft_name(token: str, path: str) -> str:
    """Return the name of a path's temporary file: a short one, so that it fits wherever the file's own name does."""
    return f"{_draft_prefix(token)}{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"


def look(cursor: safe_open.DirCursor, path: str) -> Entry:
    """Return what is at a path, without a digest; OTHER also for what is behind a link or a file. Raises `OSError`."""
    try:
        parent, name = cursor.parent_of(path)
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        target = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(status.st_mode) else ""
    except OSError as failure:
        if failure.errno == errno.ENOENT:
            return ABSENT
        if failure.errno in _NO_WAY:
            return OTHER
        raise
    return _local_entry(status, target)


def look_with_digest(cursor: safe_open.DirCursor, path: str) -> Entry:
    """Return what `look` does, with a file's digest, but ABSENT for what is behind a link or a file. Raises `OSError`.

    What this person may not read is UNREAD, and so is a file that changes while it is read.
    """
    try:
        parent, name = cursor.parent_of(path)
        entry = look(cursor, path)
        if entry.kind is not Kind.FILE:
            return entry
        descriptor, status = safe_open.open_file(name, parent)
    except PermissionError:
        return Entry(Kind.UNREAD)
    except OSError as failure:
        if failure.errno in _NO_WAY:
            return ABSENT
        raise
    try:
        digest = _digest_of(descriptor)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    read = _local_entry(status, "", digest)
    return read if read == _local_entry(after, "", digest) else Entry(Kind.UNREAD)


def _is_as_seen(cursor: safe_open.DirCursor, change: PathChange) -> bool:
    """True if something is still as it was seen; the last look before it is replaced. Raises `OSError`."""
    now = look(cursor, change.path)
    return (
        now.is_directory if change.before.is_directory else replace(now, digest=change.before.digest) == change.before
    )


def _local_entry(status: os.stat_result, target: str, digest: bytes = b"") -> Entry:
    stamp = stamp_of(status)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISREG(status.st_mode):
        return Entry(Kind.FILE, mode, size_bytes=status.st_size, digest=digest, stamp=stamp)
    if stat.S_ISDIR(status.st_mode):
        return Entry(Kind.DIRECTORY, mode, stamp=stamp)
    if stat.S_ISLNK(status.st_mode):
        return Entry(Kind.SYMLINK, target=target, stamp=stamp)
    return OTHER


def needed_changes(
    cursor: safe_open.DirCursor,
    plan: Iterable[PathChange],
    phase: JournalPhase,
    *,
    left: set[str],
    at: Place,
) -> list[PathChange]:
    """Return the rows of a plan that change something by what is there now, with the directories that they need.

    What stays as it is since it changed goes to `left`. `phase` is that of the write before. Raises `OSError`.
    """
    found: list[PathChange] = []
    created = set[str]()
    made = Entry(Kind.DIRECTORY, opened(mode_at_home(ALL_BITS, original_umask())))
    for change in sorted(plan, key=lambda change: archive_order(change.path)):
        path = at.path = change.path
        above = sorted(directories_above([path]))
        now = look_with_digest(cursor, path)
        if not created.isdisjoint(above):
            now = ABSENT  # nothing is in a directory that is yet to be created
        decision = decide(change, now, phase)
        stays = next((folder for folder in above if folder in left), "")
        if decision is WriteDecision.LEAVE or (stays and not look(cursor, stays).is_directory):
            left.add(path)
        elif decision is WriteDecision.CHANGE:
            if change.after.kind is not Kind.ABSENT:
                for folder in above:
                    if folder not in created and look(cursor, folder).kind is Kind.ABSENT:
                        created.add(folder)
                        found.append(PathChange(folder, ABSENT, made))
                if change.after.is_directory and not now.is_directory:
                    created.add(path)
            found.append(replace(change, before=now))
    return found


_Action = Callable[[safe_open.DirCursor, PathChange], bool | None]


class PathChanges:
    """The changes of one write or undo. `at` is told which path is being changed, for a message."""

    def __init__(self, workspace: str, token: str, changes: Iterable[PathChange], at: Place) -> None:
        self.left: set[str] = set()
        self._workspace = workspace
        self._token = token
        self._changes = sorted(changes, key=lambda change: archive_order(change.path))
        self._at = at
        self._drafts: dict[str, str] = {}
        self._touched: set[str] = set()

    def carry_out(self) -> set[str]:
        """Do all, and return what is left. Raises `OSError`; then no temporary file is left, as far as that can be."""
        try:
            self.prepare()
            self.make()
        except OSError:
            for path in self._drafts.values():  # a disk that is full is not kept full by them until the next undo
                with suppress(OSError), self._cursor() as cursor:
                    _remove(cursor, path)
            raise
        return self.left

    def prepare(self) -> None:
        """Write and flush the temporary files. Raises `OSError`."""
        unflushed: list[int] = []
        # In a directory that is yet to be made, or is removed, no temporary file can be.
        closed = {each.path for each in self._changes if each.before.is_directory != each.after.is_directory}
        try:
            with self._cursor() as cursor:
                for change in self._changes:
                    if change.places:
                        self._at.path = change.path
                        self._write_draft(cursor, change, closed, unflushed)
                        if len(unflushed) >= _MOST_OPEN:
                            flush_together(unflushed)
            flush_together(unflushed)
        finally:
            for descriptor in unflushed:
                os.close(descriptor)

    def make(self) -> None:
        """Change the workspace; `left` are then the paths that changed since they were seen. Raises `OSError`."""
        with self._cursor() as cursor, self._cursor() as drafts:
            top_first, deepest_first = self._changes, self._changes[::-1]
            self._each(cursor, (c for c in deepest_first if c.clears), self._clear)
            self._each(cursor, (c for c in top_first if c.after.is_directory), self._make_directory)
            self._each(cursor, (c for c in top_first if c.places), partial(self._place, drafts))
            for path, draft in sorted(self._drafts.items()):
                self._at.path = path
                _remove(drafts, draft)
            self._flush_folders(cursor)

    def _cursor(self) -> safe_open.DirCursor:
        return safe_open.DirCursor(safe_open.open_workspace(self._workspace))

    def _each(self, cursor: safe_open.DirCursor, changes: Iterable[PathChange], action: _Action) -> None:
        """Do a part of each change; if the path or the way to it has changed, it is left."""
        for change in changes:
            if change.path in self.left:
                continue
            self._at.path = change.path
            try:
                if action(cursor, change) is False:
                    self.left.add(change.path)
            except OSError as failure:
                if failure.errno not in _TAKEN and failure.errno not in _NO_WAY:
                    raise
                self.left.add(change.path)

    def _write_draft(
        self, cursor: safe_open.DirCursor, change: PathChange, closed: Container[str], unflushed: list[int]
    ) -> None:
        """Write the temporary file.

        It is in the path's directory, or in the nearest above that can hold it: it will be on the same file system, so
        that the rename crosses none.
        """
        name, entry = draft_name(self._token, change.path), change.after
        place = name
        for folder in sorted(directories_above([change.path])):
            if folder in closed:
                break
            place = f"{folder}/{name}"
        try:
            parent, _ = cursor.parent_of(place)
        except OSError as failure:
            if failure.errno not in _NO_WAY:
                raise
            self.left.add(change.path)
            return
        self._drafts[change.path] = place
        times = None if entry.stamp is None else (entry.stamp.mtime_ns,) * 2
        if entry.kind is Kind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=parent)
            if times is not None:
                os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
            return
        descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        unflushed.append(descriptor)
        written, _ = safe_open.write_blocks(safe_open.blocks_of(change.content), descriptor)
        if written != entry.digest:
            self.left.add(change.path)  # the new bytes are damaged: what is there now is better
            return
        if times is not None:
            os.utime(descriptor, ns=times)
        os.fchmod(descriptor, entry.mode)  # after the last write, which drops set-id bits

    # -- visible changes

    def _clear(self, cursor: safe_open.DirCursor, change: PathChange) -> bool:
        parent, name = cursor.parent_of(change.path)
        if not _is_as_seen(cursor, change):
            return False
        if change.before.is_directory:
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
        self._touch(change.path)
        return True

    def _make_directory(self, cursor: safe_open.DirCursor, change: PathChange) -> None:
        parent, name = cursor.parent_of(change.path)
        if not change.before.is_directory:
            os.mkdir(name, stat.S_IRWXU, dir_fd=parent)
            self._touch(change.path)
        descriptor = safe_open.open_directory(name, parent)
        try:
            now, mode = stat.S_IMODE(os.fstat(descriptor).st_mode), change.after.mode
            if change.after.stamp is None:
                mode = (now & ~ALL_BITS) | (mode & ALL_BITS)  # a new one inherits the set-group-id bit
            if now != mode:
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _place(self, drafts: safe_open.DirCursor, cursor: safe_open.DirCursor, change: PathChange) -> bool:
        parent, name = cursor.parent_of(change.path)
        replaces = change.before.kind is not Kind.ABSENT and not change.clears
        if replaces and not _is_as_seen(cursor, change):
            return False
        draft_folder, draft = drafts.parent_of(self._drafts[change.path])
        self._touch(change.path)
        self._touch(self._drafts[change.path])
        if replaces:
            os.replace(draft, name, src_dir_fd=draft_folder, dst_dir_fd=parent)
        elif not _rename_to_new(draft_folder, draft, parent, name):
            return False
        del self._drafts[change.path]
        return True

    def _touch(self, path: str) -> None:
        self._touched.add(path.rpartition("/")[0])

    def _flush_folders(self, cursor: safe_open.DirCursor) -> None:
        for folder in sorted(self._touched, key=archive_order):
            self._at.path = folder
            try:
                descriptor, _ = cursor.parent_of(f"{folder}/." if folder else ".")
            except OSError as failure:
                if failure.errno not in _NO_WAY:
                    raise
                continue  # it was removed with what was in it
            os.fsync(descriptor)


def remove_drafts(cursor: safe_open.DirCursor, token: str) -> None:
    """Remove the temporary files of a write that was killed, also from folders that were renamed since.

    What cannot be read is passed over. Raises `OSError`.
    """
    folders = [""]
    while folders:
        above = folders.pop()
        try:
            folder, _ = cursor.parent_of(f"{above}x")
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{above}{entry.name}/")
            elif entry.name.startswith(_draft_prefix(token)):
                _remove(cursor, f"{above}{entry.name}")


def _remove(cursor: safe_open.DirCursor, path: str) -> None:
    """Remove a temporary file, if it is there."""
    try:
        parent, name = cursor.parent_of(path)
        os.stat(name, dir_fd=parent, follow_symlinks=False)  # a read-only file system refuses before it looks
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


# -- contents


def link_at(workspace: str, path: str) -> str | None:
    """Return the target of a link, None for all that is no link."""
    try:
        return os.readlink(os.path.join(workspace, path))
    except OSError:
        return None


def _digest_of(descriptor: int) -> bytes:
    """Return the SHA-256 of a file that was just opened, of no more bytes than it has now. Raises `OSError`."""
    digest, left = hashlib.sha256(), os.fstat(descriptor).st_size
    while left > 0 and (block := os.read(descriptor, min(_BLOCK_BYTES, left))):
        digest.update(block)
        left -= len(block)
    return digest.digest()
