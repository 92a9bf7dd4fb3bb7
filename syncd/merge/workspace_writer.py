"""Writes to the workspace, all or nothing, so that they can be undone.

The order of a write, each line flushed before the next one begins:

1. the journal says that a write is prepared, with the names of its temporary files;
2. the bytes that will be replaced are kept in the state folder, the new ones are written to temporary files;
3. the journal says that the workspace is being changed, from what to what;
4. the workspace is changed (`path_changes`);
5. the journal says that the write is done, and replaces that of the write before.

After a death in 1 or 2 there are only temporary files to remove; after one in 3 or 4, each path that is as the write
left it is restored. An undo begins like a write that was killed in 4, and goes the same way. So both may be killed and
run again. Of files, the journal knows digests: a path that someone changed since is recognized, and left as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec.structs
from msgspec import Struct
from msgspec.structs import replace

from syncd.core.errors import TryLater
from syncd.core.text import shown_path
from syncd.merge.file_copy import copy_range
from syncd.merge.journal import Journal, JournalEntry, KeptBytes
from syncd.merge.path_changes import (
    PathChanges,
    Place,
    Step,
    look,
    look_with_digest,
    remove_drafts,
    set_directory_mode,
)
from syncd.merge.writes import (
    PERMISSIONS,
    JournalItem,
    JournalPhase,
    NewEntry,
    Restoration,
    Write,
    ancestors,
    by_depth,
    check_plan,
    may_be_as_planned,
    opened,
    restoration,
)
from syncd.model.entry import ABSENT, Entry, Kind
from syncd.selection import safe_open

_AGAIN = "run `syncd apply --undo` to put back the rest"


class Written(Struct, frozen=True):
    """The result of a write: `conflicts` changed since the plan saw them and are as they were; the others are in place.

    Paths are sorted, and each is one of the plan.
    """

    written: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


class Undone(Struct, frozen=True):
    """The result of an undo. `left` paths were changed since the write, or the rules leave them out by now.

    `note` is the write's; None: there was none.
    """

    restored: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    note: bytes | None = None


class WorkspaceWriter:
    """Writes to one workspace. It uses the folder `apply` in `state_folder`, one process at a time.

    Whenever something is taken back, also what was killed, `before_taking_back` gets the note of that write and the
    paths that are about to be restored; if it raises, nothing is.
    """

    def __init__(
        self,
        workspace: str,
        state_folder: str,
        before_taking_back: Callable[[bytes, Collection[str]], None] = lambda _, __: None,
    ) -> None:
        self._workspace = workspace
        self._before_taking_back = before_taking_back
        self._journal = Journal(state_folder)

    def look(self, paths: Iterable[str]) -> dict[str, Entry]:
        """Return what is at each path now, with digests, as `Write.before` takes it. Raises `TryLater`.

        Nothing is behind a link or a file, for the plan may put a directory there.
        """
        found: dict[str, Entry] = {}
        with _reported("cannot be read", "let syncd read it") as at, self._cursor() as cursor:
            for path in sorted(paths, key=by_depth):
                at.path = path
                found[path] = look_with_digest(cursor, path) or ABSENT
        return found

    def write(self, writes: Sequence[Write], note: bytes) -> Written:
        """Change the workspace as planned; `note` is given back by `undo`.

        A write that was killed is taken back first. One that changes nothing leaves the one before undoable.

        Raises `TryLater` if anything cannot be written, after everything was taken back, and `ValueError` for a plan
        that contradicts itself.
        """
        check_plan(writes)
        with self._locked():
            self._take_back_killed()
            items, conflicts = self._compare(writes)
            if not items:
                return Written(conflicts=tuple(sorted(conflicts)))
            return self._write(items, conflicts, note)

    def undo(self, leave_out: Callable[[bytes, Collection[str]], Collection[str]] = lambda _, __: ()) -> Undone:
        """Take back a write that was killed, else the last one, whose note and paths `leave_out` gets: what it returns
        stays as it is. Raises `TryLater`; then it can be run again.
        """
        with self._locked():
            killed = self._journal.pending()
            if killed is not None:
                return self._take_back(killed)
            last = self._journal.last()
            if last is None:
                return Undone()
            left = leave_out(last.note, [item.path for item in last.items if not item.implied])
            items = tuple(item for item in last.items if item.path not in left)
            return self._take_back(replace(last, items=items, left=tuple(left)))

    def finish_interrupted(self) -> Undone:
        """Take back a write that was killed, and finish such an undo. Raises `TryLater`; then it can be run again."""
        with self._locked():
            return self._take_back_killed()

    def _cursor(self) -> safe_open.DirCursor:
        return safe_open.DirCursor(safe_open.open_workspace(self._workspace))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (
            _reported("cannot be changed", "see that syncd's state folder can be written to, and has room"),
            self._journal.locked(),
        ):
            yield

    # -- write

    def _compare(self, writes: Sequence[Write]) -> tuple[dict[str, _Planned], set[str]]:
        """Return what is to be changed, with the directories that it needs, and the paths that changed already."""
        planned: dict[str, _Planned] = {}
        conflicts: set[str] = set()
        with _reported("cannot be read", "nothing was changed; let syncd read it") as at, self._cursor() as cursor:
            folders = _Folders(cursor)
            for write in sorted(writes, key=lambda write: by_depth(write.path)):
                path, after = write.path, write.after
                at.path = path
                now = None if folders.creates_above(path) else look(cursor, path)
                if folders.leads_through(path, conflicts) or not may_be_as_planned(now, write.before):
                    conflicts.add(path)
                elif after is None:
                    if now is not None:
                        planned[path] = _Planned(now, write)
                elif not _is_directory_already(now, after):
                    for folder, mode in folders.missing_above(path):
                        implied = NewEntry(Kind.DIRECTORY, mode)
                        planned[folder] = _Planned(None, Write(folder, ABSENT, implied), implied=True)
                    if after.kind is Kind.DIRECTORY and not (now is not None and now.is_directory):
                        folders.create(path, after.mode)
                    planned[path] = _Planned(now, write)
        return planned, conflicts

    def _write(self, planned: dict[str, _Planned], conflicts: set[str], note: bytes) -> Written:
        items = {
            path: JournalItem(number, path, plan.now, _becomes(plan), implied=plan.implied)
            for number, (path, plan) in enumerate(planned.items())
        }
        entry = JournalEntry(os.urandom(6).hex(), JournalPhase.PREPARING, note, tuple(items.values()))
        try:
            self._journal.save(entry)
            self._keep(entry.token, planned, items, conflicts)
            steps = [_step(item, planned[path].write) for path, item in items.items()]
            with _reported("cannot be written", "nothing was changed; free the way, then run it again") as at:
                changes = PathChanges(self._workspace, entry.token, steps, at)
                changes.prepare()
                for path, digest in changes.digests.items():
                    items[path] = replace(items[path], after=_with_digest(items[path].after, digest))
                entry = replace(entry, phase=JournalPhase.CHANGING, items=tuple(items.values()))
                self._journal.save(entry)
                changes.make()
            done = [item for item in items.values() if item.path not in changes.left]
            if done:
                self._journal.complete(replace(entry, items=tuple(done)))
            else:
                self._journal.forget(entry)
        except BaseException:
            # A failure in this, which is rare, takes the place of the first one: it is the one to act on.
            self._take_back(entry)
            raise
        conflicts |= {item.path for item in items.values() if item.path in changes.left and not item.implied}
        written = sorted(item.path for item in done if not item.implied)
        return Written(tuple(written), tuple(sorted(conflicts)))

    def _keep(
        self, token: str, planned: dict[str, _Planned], items: dict[str, JournalItem], conflicts: set[str]
    ) -> None:
        """Copy the bytes that will be replaced; a file that has changed goes from the items to the conflicts."""
        with (
            _reported("cannot be kept for an undo", "nothing was changed; see that it can be read and kept") as at,
            self._journal.keeper(token) as kept,
            self._cursor() as cursor,
        ):
            for path, plan in planned.items():
                if plan.now is not None and plan.now.kind is Kind.FILE:
                    at.path = path
                    found = _keep_file(cursor, kept, path, plan.now)
                    if found is None or plan.write.before.digest not in (b"", found[1]):
                        del items[path]
                        conflicts.add(path)
                    else:
                        before = _with_digest(plan.now, found[1])
                        items[path] = replace(items[path], before=before, kept_at=found[0])
            at.path = ""
            kept.flush()

    # -- undo

    def _take_back_killed(self) -> Undone:
        killed = self._journal.pending()
        return Undone() if killed is None else self._take_back(killed)

    def _take_back(self, entry: JournalEntry) -> Undone:
        """Restore what is as the write left it, and remove its journal."""
        left: set[str] = set(entry.left)
        restored: tuple[str, ...] = ()
        with _reported("cannot be put back", _AGAIN) as at:
            with self._cursor() as cursor:
                modes = self._open_directories(cursor, entry, at)
                # Before the look: one may be a second name of a file that is in place, whose ctime changes with it.
                remove_drafts(cursor, entry.token, [(item.number, item.path) for item in entry.items])
                items = self._to_restore(cursor, entry, left, modes, at)
                if items:
                    self._before_taking_back(entry.note, {one.item.path for one in items})
                if entry.phase is JournalPhase.DONE:
                    # What is left now stays left, also if this is killed and run again.
                    rest = tuple(item for item in entry.items if item.path not in left)
                    entry = replace(entry, phase=JournalPhase.CHANGING, items=rest, left=tuple(sorted(left)))
                    self._journal.save(entry)
            if items:
                restored = self._restore(entry.token, items, left, at)
            at.path = ""
            self._journal.forget(entry)
        implied = {item.path for item in (*entry.items, *(one.item for one in items)) if item.implied}
        return Undone(
            tuple(path for path in restored if path not in implied), tuple(sorted(left - implied)), entry.note
        )

    def _open_directories(self, cursor: safe_open.DirCursor, entry: JournalEntry, at: Place) -> dict[str, int]:
        """Let the owner see and change what is in directories to restore, and return the modes that these had."""
        modes: dict[str, int] = {}
        if entry.phase is JournalPhase.PREPARING:
            return modes
        for item in sorted(entry.items, key=lambda item: by_depth(item.path)):
            if any(one is not None and one.is_directory for one in (item.before, item.after)):
                at.path = item.path
                now = look(cursor, item.path)
                closed = now is not None and now.is_directory and now.mode != opened(now.mode)
                if now is not None and closed and restoration(item, now, entry.phase) is Restoration.RESTORE:
                    set_directory_mode(cursor, item.path, opened(now.mode))
                    modes[item.path] = now.mode
        return modes

    def _to_restore(
        self, cursor: safe_open.DirCursor, entry: JournalEntry, left: set[str], modes: Mapping[str, int], at: Place
    ) -> list[_Restorable]:
        """Return what is to be restored; paths that were changed since go to `left`."""
        found: list[_Restorable] = []
        if entry.phase is JournalPhase.PREPARING:
            return found
        folders = _Folders(cursor)
        for item in sorted(entry.items, key=lambda item: by_depth(item.path)):
            path = at.path = item.path
            now = None if folders.creates_above(path) else look_with_digest(cursor, path)
            if now is not None and path in modes:
                now = msgspec.structs.replace(now, mode=modes[path])
            decision = restoration(item, now, entry.phase)
            if decision is Restoration.LEAVE or folders.leads_through(path, left):
                left.add(path)
            elif decision is Restoration.RESTORE:
                before = item.before
                if before is not None:
                    for folder, mode in folders.missing_above(path):
                        again = Entry(Kind.DIRECTORY, mode)
                        found.append(_Restorable(JournalItem(-1, folder, again, None, implied=True), None))
                    if before.is_directory and not (now is not None and now.is_directory):
                        folders.create(path, before.mode)
                found.append(_Restorable(item, now))
        return found

    def _restore(self, token: str, found: list[_Restorable], left: set[str], at: Place) -> tuple[str, ...]:
        with self._journal.kept(token) as kept:
            steps = [
                Step(
                    one.item.number,
                    one.item.path,
                    one.now,
                    one.item.before,
                    _kept_content(kept, one.item),
                    one.item.implied and one.item.before is not None,
                )
                for one in found
            ]
            changes = PathChanges(self._workspace, token, steps, at)
            changes.prepare()
            changes.make()
        left |= changes.left
        return tuple(sorted(one.item.path for one in found if one.item.path not in changes.left))


class _Restorable(Struct, frozen=True):
    """A path to restore, with what is there now."""

    item: JournalItem
    now: Entry | None


class _Folders:
    """The directories above paths that are visited in order: those that are there, and those that will be created."""

    def __init__(self, cursor: safe_open.DirCursor) -> None:
        self._cursor = cursor
        self._modes: dict[str, int] = {"": os.fstat(cursor.parent_of(".")[0]).st_mode & PERMISSIONS}
        self._created: set[str] = set()

    def create(self, folder: str, mode: int) -> None:
        """Note a directory that will be created."""
        self._created.add(folder)
        self._modes[folder] = mode & PERMISSIONS

    def creates_above(self, path: str) -> bool:
        """True if a directory above the path will be created, so that nothing is there yet."""
        return any(folder in self._created for folder in ancestors(path))

    def leads_through(self, path: str, left: Container[str]) -> bool:
        """True if the path is below one that stays as it is, and that is no directory."""
        for folder in ancestors(path):
            if folder in left:
                now = look(self._cursor, folder)
                return now is None or not now.is_directory
        return False

    def missing_above(self, path: str) -> Iterator[tuple[str, int]]:
        """Yield the directories that have to be created for a path, with their modes, and note them.

        Without a plan for it a directory gets the mode of the one above, so that nobody sees more than there.
        """
        above = ""
        for folder in ancestors(path):
            if folder not in self._modes:
                now = look(self._cursor, folder)
                mode = opened(self._modes[above]) if now is None else now.mode & PERMISSIONS
                if now is None:
                    self.create(folder, mode)
                    yield folder, mode
                self._modes[folder] = mode
            above = folder


class _Planned(Struct, frozen=True):
    """A Write, with what is at its path now, without a digest."""

    now: Entry | None
    write: Write
    implied: bool = False


def _is_directory_already(now: Entry | None, after: NewEntry) -> bool:
    return (
        now is not None
        and now.is_directory
        and after.kind is Kind.DIRECTORY
        and not (now.mode ^ after.mode) & PERMISSIONS
    )


def _becomes(plan: _Planned) -> Entry | None:
    after = plan.write.after
    if after is None:
        return None
    if after.kind is Kind.SYMLINK:
        return Entry(Kind.SYMLINK, target=after.target)
    return Entry(after.kind, after.mode & PERMISSIONS)


def _step(item: JournalItem, write: Write) -> Step:
    fill = _content_of(write.after.content if write.after is not None else "")
    return Step(item.number, item.path, item.before, item.after, fill, item.implied)


def _content_of(path: str) -> Callable[[int], bytes]:
    def fill(target: int) -> bytes:
        descriptor, status = safe_open.open_file(path, None)
        try:
            return copy_range(descriptor, 0, status.st_size, target)
        finally:
            os.close(descriptor)

    return fill


def _kept_content(kept: KeptBytes, item: JournalItem) -> Callable[[int], bytes]:
    size_bytes = 0 if item.before is None else item.before.size_bytes

    def fill(target: int) -> bytes:
        return kept.copy(item.kept_at, size_bytes, target)

    return fill


def _keep_file(cursor: safe_open.DirCursor, kept: KeptBytes, path: str, now: Entry) -> tuple[int, bytes] | None:
    """Copy a file, and return where it begins and its digest; None if it changed since it was seen."""
    parent, name = cursor.parent_of(path)
    try:
        descriptor, _ = safe_open.open_file(name, parent)
    except OSError:
        if look(cursor, path) == now:
            raise
        return None
    try:
        at, digest = kept.keep(descriptor, now.size_bytes)
    finally:
        os.close(descriptor)
    return (at, digest) if look(cursor, path) == now else None


def _with_digest(entry: Entry | None, digest: bytes) -> Entry | None:
    return None if entry is None else msgspec.structs.replace(entry, digest=digest)


@contextmanager
def _reported(what: str, remedy: str) -> Iterator[Place]:
    """Turn a failure of the disk into one line about the path that was worked on; an empty one is the workspace."""
    at = Place()
    try:
        yield at
    except OSError as failure:
        place = repr(shown_path(at.path)) if at.path else "the workspace"
        raise TryLater(f"{place} {what} ({failure.strerror or failure})", remedy) from failure
