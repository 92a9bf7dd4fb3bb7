"""Writes to the workspace, all or nothing, so that they can be undone.

The order of a write, each line flushed before the next one begins:

1. the journal (a record in the state's database) says that a write is prepared, with the names of its temporary files;
2. the bytes that will be replaced are kept in the state folder, the new ones are written to temporary files;
3. the journal says that the workspace is being changed, from what to what;
4. the workspace is changed (`path_changes`);
5. the journal says that the write is done, and replaces that of the write before; the caller records in the same
   transaction what it means.

After a death in 1 or 2 there are only temporary files to remove; after one in 3 or 4, each path that is as the write
left it is restored. An undo begins like a write that was killed in 4, in one transaction with what the caller records
of it, and goes the same way. So both may be killed and run again. Of files, the journal knows digests: a path that
someone changed since is recognized, and left as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.errors import TryLater
from syncd.core.text import shown_path
from syncd.merge.file_copy import append, copy_range
from syncd.merge.journal import Journal, JournalEntry
from syncd.merge.path_changes import (
    PathChanges,
    Place,
    look,
    look_with_digest,
    remove_drafts,
    set_directory_mode,
)
from syncd.merge.writes import (
    JournalPhase,
    PathChange,
    Restoration,
    Write,
    ancestors,
    by_depth,
    check_plan,
    is_closed,
    may_be_as_planned,
    opened,
    restoration,
)
from syncd.model.entry import ABSENT, ALL_BITS, Entry, Kind
from syncd.sandbox.sandbox_content import TakenPath
from syncd.selection import safe_open
from syncd.store.state_db import StateDb

_AGAIN = "run `syncd apply --undo` to put back the rest"


class Written(Struct, frozen=True):
    """The result of a write: `conflicts` changed since the plan saw them and are as they were; the others are in place.

    Paths are sorted, and each is one of the plan.
    """

    written: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


class Undone(Struct, frozen=True):
    """The result of an undo. `left` paths were changed since the write, or the rules leave them out by now."""

    restored: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class WorkspaceWriter:
    """Writes to one workspace, one process at a time.

    Whenever something is taken back, also what was killed, `before_taking_back` gets those `taken` by that write whose
    paths are about to be restored; if it raises, nothing is. What it records of an undo is in one transaction with the
    begin of that.
    """

    def __init__(
        self,
        workspace: str,
        db: StateDb,
        before_taking_back: Callable[[Sequence[TakenPath]], None] = lambda _: None,
    ) -> None:
        self._workspace = workspace
        self._db = db
        self._before_taking_back = before_taking_back
        self._journal = Journal(db)

    def look(self, paths: Iterable[str]) -> dict[str, Entry]:
        """Return what is at each path now, with digests, as `Write.before` takes it. Raises `TryLater`.

        Nothing is behind a link or a file, for the plan may put a directory there.
        """
        found: dict[str, Entry] = {}
        with _reported("cannot be read", "let syncd read it") as at, self._cursor() as cursor:
            for path in sorted(paths, key=by_depth):
                at.path = path
                found[path] = look_with_digest(cursor, path)
        return found

    def write(
        self,
        writes: Sequence[Write],
        taken: Iterable[TakenPath] = (),
        record: Callable[[Written], None] = lambda _: None,
    ) -> Written:
        """Change the workspace as planned. `taken` is what may count as sent then.

        `record` gets the result once all is in place, and what it changes in the database is in one transaction with
        the end of the write; if it raises, all is taken back.

        A write that was killed is taken back first. One that changes nothing leaves the one before undoable.

        Raises `TryLater` if anything cannot be written, after everything was taken back, and `ValueError` for a plan
        that contradicts itself.
        """
        plan = check_plan(writes)
        with self._locked():
            self._take_back_killed()
            changes, conflicts = self._compare(plan)
            if changes:
                return self._write(plan, changes, conflicts, tuple(taken), record)
            written = Written(conflicts=tuple(sorted(conflicts)))
            record(written)
            return written

    def undo(
        self, leave_out: Callable[[Sequence[TakenPath], Collection[str]], Collection[str]] = lambda _, __: ()
    ) -> Undone:
        """Take back a write that was killed, else the last one: of its `taken` and its paths, which `leave_out` gets,
        what that returns stays as it is. Raises `TryLater`; then it can be run again.
        """
        with self._locked():
            killed = self._journal.pending()
            if killed is not None:
                return self._take_back(killed)
            last = self._journal.last()
            if last is None:
                return Undone()
            left = leave_out(last.taken, [each.path for each in last.changes if not each.implied])
            changes = tuple(each for each in last.changes if each.path not in left)
            return self._take_back(replace(last, changes=changes, left=tuple(left)))

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

    def _compare(self, plan: Mapping[str, Write]) -> tuple[dict[str, PathChange], set[str]]:
        """Return the changes, with the directories that they need, and the paths that changed already."""
        changes: dict[str, PathChange] = {}
        conflicts: set[str] = set()

        def add(path: str, before: Entry, after: Entry, *, implied: bool = False) -> None:
            becomes = Entry(after.kind, after.mode & ALL_BITS, target=after.target)
            changes[path] = PathChange(len(changes), path, before, becomes, implied=implied)

        with _reported("cannot be read", "nothing was changed; let syncd read it") as at, self._cursor() as cursor:
            folders = _Folders(cursor)
            for path in sorted(plan, key=by_depth):
                at.path, after = path, plan[path].after
                now = ABSENT if folders.creates_above(path) else look(cursor, path)
                if folders.leads_through(path, conflicts) or not may_be_as_planned(now, plan[path].before):
                    conflicts.add(path)
                elif after.kind is Kind.ABSENT:
                    if now.kind is not Kind.ABSENT:
                        add(path, now, after)
                elif not (now.is_directory and after.is_directory) or (now.mode ^ after.mode) & ALL_BITS:
                    for folder, mode in folders.missing_above(path):
                        add(folder, ABSENT, Entry(Kind.DIRECTORY, mode), implied=True)
                    if after.is_directory and not now.is_directory:
                        folders.create(path, after.mode)
                    add(path, now, after)
        return changes, conflicts

    def _write(
        self,
        plan: Mapping[str, Write],
        changes: dict[str, PathChange],
        conflicts: set[str],
        taken: tuple[TakenPath, ...],
        record: Callable[[Written], None],
    ) -> Written:
        entry = JournalEntry(
            token=os.urandom(6).hex(), phase=JournalPhase.PREPARING, taken=taken, changes=tuple(changes.values())
        )
        try:
            self._journal.save(entry)
            self._keep(entry.token, plan, changes, conflicts)
            with _reported("cannot be written", "nothing was changed; free the way, then run it again") as at:
                steps = PathChanges(
                    self._workspace,
                    entry.token,
                    tuple(changes.values()),
                    lambda change, target: _copy_whole(plan[change.path].content, target),
                    at,
                )
                steps.prepare()
                for path, digest in steps.digests.items():
                    changes[path] = replace(changes[path], after=replace(changes[path].after, digest=digest))
                entry = replace(entry, phase=JournalPhase.CHANGING, changes=tuple(changes.values()))
                self._journal.save(entry)
                steps.make()
            done = tuple(each for each in entry.changes if each.path not in steps.left)
            conflicts |= {path for path in steps.left if not changes[path].implied}
            written = Written(tuple(sorted(each.path for each in done if not each.implied)), tuple(sorted(conflicts)))
            with self._db.transaction():
                record(written)
                self._journal.complete(replace(entry, changes=done))
        except BaseException:
            # A failure in this, which is rare, takes the place of the first one: it is the one to act on.
            self._take_back(entry)
            raise
        with suppress(OSError):  # the next one does it
            self._journal.remove_kept()
        return written

    def _keep(self, token: str, plan: Mapping[str, Write], changes: dict[str, PathChange], conflicts: set[str]) -> None:
        """Copy the bytes that will be replaced; a file that has changed goes from the changes to the conflicts."""
        with (
            _reported("cannot be kept for an undo", "nothing was changed; see that it can be read and kept") as at,
            self._journal.kept(token) as kept,
            self._cursor() as cursor,
        ):
            for path, change in list(changes.items()):
                if change.before.kind is Kind.FILE:
                    at.path = path
                    found = _keep_file(cursor, kept, path, change.before)
                    if found is None or plan[path].before.digest not in (b"", found[1]):
                        del changes[path]
                        conflicts.add(path)
                    else:
                        before = replace(change.before, digest=found[1])
                        changes[path] = replace(change, before=before, kept_at=found[0])
            at.path = ""

    # -- undo

    def _take_back_killed(self) -> Undone:
        killed = self._journal.pending()
        return Undone() if killed is None else self._take_back(killed)

    def _take_back(self, entry: JournalEntry) -> Undone:
        """Restore what is as the write left it, and remove its journal."""
        left: set[str] = set(entry.left)
        restored: set[str] = set()
        with _reported("cannot be put back", _AGAIN) as at:
            with self._cursor() as cursor:
                modes = self._open_directories(cursor, entry, at)
                # Before the look: one may be a second name of a file that is in place, whose ctime changes with it.
                remove_drafts(cursor, entry.token, [(each.number, each.path) for each in entry.changes])
                changes = self._to_restore(cursor, entry, left, modes, at)
            at.path = ""
            paths = {each.path for each in changes}
            taken = [each for each in entry.taken if each.path in paths]
            if entry.phase is JournalPhase.DONE:
                # What is left now stays left, also if this is killed and run again.
                rest = tuple(each for each in entry.changes if each.path not in left)
                entry = replace(entry, phase=JournalPhase.CHANGING, changes=rest, left=tuple(sorted(left)))
                with self._db.transaction():
                    self._before_taking_back(taken)
                    self._journal.reopen(entry)
            else:
                self._before_taking_back(taken)
            if changes:
                left |= self._restore(entry.token, changes, at)
                restored = paths - left
            at.path = ""
            self._journal.forget()
        implied = {each.path for each in (*entry.changes, *changes) if each.implied}
        return Undone(tuple(sorted(restored - implied)), tuple(sorted(left - implied)))

    def _open_directories(self, cursor: safe_open.DirCursor, entry: JournalEntry, at: Place) -> dict[str, int]:
        """Let the owner see and change what is in directories to restore, and return the modes that these had."""
        modes: dict[str, int] = {}
        if entry.phase is JournalPhase.PREPARING:
            return modes
        for change in sorted(entry.changes, key=lambda change: by_depth(change.path)):
            if change.before.is_directory or change.after.is_directory:
                at.path = change.path
                now = look(cursor, change.path)
                if is_closed(now) and restoration(change, now, entry.phase) is Restoration.RESTORE:
                    set_directory_mode(cursor, change.path, opened(now.mode))
                    modes[change.path] = now.mode
        return modes

    def _to_restore(
        self, cursor: safe_open.DirCursor, entry: JournalEntry, left: set[str], modes: Mapping[str, int], at: Place
    ) -> list[PathChange]:
        """Return the changes that restore what was there; paths that were changed since go to `left`."""
        found: list[PathChange] = []
        if entry.phase is JournalPhase.PREPARING:
            return found
        folders = _Folders(cursor)
        for change in sorted(entry.changes, key=lambda change: by_depth(change.path)):
            path, before = change.path, change.before
            at.path = path
            now = ABSENT if folders.creates_above(path) else look_with_digest(cursor, path)
            if path in modes and now.kind is not Kind.ABSENT:
                now = replace(now, mode=modes[path])
            decision = restoration(change, now, entry.phase)
            if decision is Restoration.LEAVE or folders.leads_through(path, left):
                left.add(path)
            elif decision is Restoration.RESTORE:
                if before.kind is not Kind.ABSENT:
                    for folder, mode in folders.missing_above(path):
                        found.append(PathChange(-1, folder, ABSENT, Entry(Kind.DIRECTORY, mode), implied=True))
                    if before.is_directory and not now.is_directory:
                        folders.create(path, before.mode)
                found.append(PathChange(change.number, path, now, before, change.kept_at))
        return found

    def _restore(self, token: str, changes: Sequence[PathChange], at: Place) -> set[str]:
        """Make the changes, and return the paths that are left."""
        with self._journal.kept(token) as kept:

            def fill(change: PathChange, target: int) -> bytes:
                return copy_range(kept, change.kept_at, change.after.size_bytes, target)

            steps = PathChanges(self._workspace, token, changes, fill, at)
            steps.prepare()
            steps.make()
        return steps.left


class _Folders:
    """The directories above paths that are visited in order: those that are there, and those that will be created."""

    def __init__(self, cursor: safe_open.DirCursor) -> None:
        self._cursor = cursor
        self._modes: dict[str, int] = {"": os.fstat(cursor.parent_of(".")[0]).st_mode & ALL_BITS}
        self._created: set[str] = set()

    def create(self, folder: str, mode: int) -> None:
        """Note a directory that will be created."""
        self._created.add(folder)
        self._modes[folder] = mode & ALL_BITS

    def creates_above(self, path: str) -> bool:
        """True if a directory above the path will be created, so that nothing is there yet."""
        return any(folder in self._created for folder in ancestors(path))

    def leads_through(self, path: str, left: Container[str]) -> bool:
        """True if the path is below one that stays as it is, and that is no directory."""
        for folder in ancestors(path):
            if folder in left:
                return not look(self._cursor, folder).is_directory
        return False

    def missing_above(self, path: str) -> Iterator[tuple[str, int]]:
        """Yield the directories that have to be created for a path, with their modes, and note them.

        Without a plan for it a directory gets the mode of the one above, so that nobody sees more than there.
        """
        above = ""
        for folder in ancestors(path):
            if folder not in self._modes:
                now = look(self._cursor, folder)
                is_missing = now.kind is Kind.ABSENT
                mode = opened(self._modes[above]) if is_missing else now.mode & ALL_BITS
                if is_missing:
                    self.create(folder, mode)
                    yield folder, mode
                self._modes[folder] = mode
            above = folder


def _copy_whole(path: str, target: int) -> bytes:
    descriptor, status = safe_open.open_file(path, None)
    try:
        return copy_range(descriptor, 0, status.st_size, target)
    finally:
        os.close(descriptor)


def _keep_file(cursor: safe_open.DirCursor, kept: int, path: str, now: Entry) -> tuple[int, bytes] | None:
    """Copy a file, and return where it begins and its digest; None if it changed since it was seen."""
    parent, name = cursor.parent_of(path)
    try:
        descriptor, _ = safe_open.open_file(name, parent)
    except OSError:
        if look(cursor, path) == now:
            raise
        return None
    try:
        at, digest = append(descriptor, now.size_bytes, kept)
    finally:
        os.close(descriptor)
    return (at, digest) if look(cursor, path) == now else None


@contextmanager
def _reported(what: str, remedy: str) -> Iterator[Place]:
    """Turn a failure of the disk into one line about the path that was worked on; an empty one is the workspace."""
    at = Place()
    try:
        yield at
    except OSError as failure:
        place = repr(shown_path(at.path)) if at.path else "the workspace"
        raise TryLater(f"{place} {what} ({failure.strerror or failure})", remedy) from failure
