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
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

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
    needed_changes,
    remove_draft,
    set_directory_mode,
)
from syncd.merge.writes import (
    JournalPhase,
    PathChange,
    WriteDecision,
    by_depth,
    check_plan,
    decide_undo,
    decide_write,
    is_closed,
    opened,
)
from syncd.model.entry import Entry, Kind
from syncd.sandbox.sandbox_content import TakenPath
from syncd.selection import safe_open
from syncd.store.state_db import StateDb

_AGAIN = "run `syncd apply --undo` to put back the rest"


class Written(Struct, frozen=True):
    """The result of a write or an undo: paths of the plan, sorted.

    `done` are as planned, or as before the write. `left` were changed since the plan saw them, or since the write, and
    are as they were; an undo also leaves what it was to leave out.
    """

    done: tuple[str, ...] = ()
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
        """Return what is at each path now, with digests, as `PathChange.before` takes it. Raises `TryLater`.

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
        plan: Sequence[PathChange],
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
        check_plan(plan)
        with self._locked():
            self._take_back_killed()
            left: set[str] = set()
            with _reported("cannot be read", "nothing was changed; let syncd read it") as at, self._cursor() as cursor:
                changes = needed_changes(cursor, plan, partial(look, cursor), decide_write, left=left, at=at)
            if changes:
                return self._write(changes, left, tuple(taken), record)
            written = Written(left=tuple(sorted(left)))
            record(written)
            return written

    def undo(
        self, leave_out: Callable[[Sequence[TakenPath], Collection[str]], Collection[str]] = lambda _, __: ()
    ) -> Written:
        """Take back a write that was killed, else the last one: of its `taken` and its paths, which `leave_out` gets,
        what that returns stays as it is. Raises `TryLater`; then it can be run again.
        """
        with self._locked():
            killed = self._journal.pending()
            if killed is not None:
                return self._take_back(killed)
            last = self._journal.last()
            if last is None:
                return Written()
            left = leave_out(last.taken, [each.path for each in last.changes if not each.implied])
            changes = tuple(each for each in last.changes if each.path not in left)
            return self._take_back(replace(last, changes=changes, left=tuple(left)))

    def finish_interrupted(self) -> Written:
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

    def _write(
        self,
        changes: Sequence[PathChange],
        left: set[str],
        taken: tuple[TakenPath, ...],
        record: Callable[[Written], None],
    ) -> Written:
        token = os.urandom(6).hex()
        entry = JournalEntry(token=token, phase=JournalPhase.PREPARING, taken=taken, changes=tuple(changes))
        try:
            self._journal.save(entry)
            kept = self._keep(token, changes, left)
            with _reported("cannot be written", "nothing was changed; free the way, then run it again") as at:
                steps = PathChanges(self._workspace, token, kept, _copy_content, at)
                entry = replace(entry, phase=JournalPhase.CHANGING, changes=steps.prepare())
                self._journal.save(entry)
                steps.make()
            done = tuple(each for each in entry.changes if each.path not in steps.left)
            left |= steps.left
            written = _written(done, left, entry.changes)
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

    def _keep(self, token: str, changes: Sequence[PathChange], left: set[str]) -> list[PathChange]:
        """Copy the bytes that will be replaced, and return the changes; a file that has changed is left."""
        found: list[PathChange] = []
        with (
            _reported("cannot be kept for an undo", "nothing was changed; see that it can be read and kept") as at,
            self._journal.kept(token) as kept,
            self._cursor() as cursor,
        ):
            for change in changes:
                at.path = change.path
                row = _kept(cursor, kept, change) if change.before.kind is Kind.FILE else change
                if row is None:
                    left.add(change.path)
                else:
                    found.append(row)
            at.path = ""
        return found

    # -- undo

    def _take_back_killed(self) -> Written:
        killed = self._journal.pending()
        return Written() if killed is None else self._take_back(killed)

    def _take_back(self, entry: JournalEntry) -> Written:
        """Restore what is as the write left it, and remove its journal."""
        left: set[str] = set(entry.left)
        with _reported("cannot be put back", _AGAIN) as at:
            with self._cursor() as cursor:
                changes = self._to_restore(cursor, entry, left, at)
            at.path = ""
            paths = {each.path for each in changes}
            with self._db.transaction():
                self._before_taking_back([each for each in entry.taken if each.path in paths])
                if entry.phase is JournalPhase.DONE:
                    # What is left now stays left, also if this is killed and run again.
                    rest = tuple(each for each in entry.changes if each.path not in left)
                    entry = replace(entry, phase=JournalPhase.CHANGING, changes=rest, left=tuple(sorted(left)))
                    self._journal.reopen(entry)
            if changes:
                with self._journal.kept(entry.token) as kept:

                    def fill(change: PathChange, target: int) -> bytes:
                        return copy_range(kept, change.kept_at, change.after.size_bytes, target)

                    steps = PathChanges(self._workspace, entry.token, changes, fill, at)
                    steps.prepare()
                    steps.make()
                left |= steps.left
            at.path = ""
            self._journal.forget()
        return _written([each for each in changes if each.path not in left], left, (*entry.changes, *changes))

    def _to_restore(
        self, cursor: safe_open.DirCursor, entry: JournalEntry, left: set[str], at: Place
    ) -> list[PathChange]:
        """Return the changes that restore what was there, the journal's rows turned round.

        Paths that were changed since go to `left`. Temporary files are removed, and of directories to restore, the
        owner may see and change what is in them.
        """
        sees = look if entry.phase is JournalPhase.PREPARING else look_with_digest

        def look_at(path: str) -> Entry:
            # Before the look: it may be a second name of the file that is in place, whose ctime changes with it.
            remove_draft(cursor, entry.token, path)
            return sees(cursor, path)

        def decide(change: PathChange, now: Entry) -> WriteDecision:
            decision = decide_undo(change, now, entry.phase)
            if decision is WriteDecision.CHANGE and is_closed(now):
                set_directory_mode(cursor, change.path, opened(now.mode))
            return decision

        turned = (replace(each, before=each.after, after=each.before, implied=False) for each in entry.changes)
        return needed_changes(cursor, turned, look_at, decide, left=left, at=at)


def _written(done: Iterable[PathChange], left: set[str], changes: Iterable[PathChange]) -> Written:
    """Return the result without the directories that are in no plan."""
    implied = {each.path for each in changes if each.implied}
    return Written(tuple(sorted({each.path for each in done} - implied)), tuple(sorted(left - implied)))


def _copy_content(change: PathChange, target: int) -> bytes:
    descriptor, status = safe_open.open_file(change.content, None)
    try:
        return copy_range(descriptor, 0, status.st_size, target)
    finally:
        os.close(descriptor)


def _kept(cursor: safe_open.DirCursor, kept: int, change: PathChange) -> PathChange | None:
    """Copy a file, and return the change with the place of the copy; None if the file changed since it was seen."""
    seen = replace(change.before, digest=b"")
    parent, name = cursor.parent_of(change.path)
    try:
        descriptor, _ = safe_open.open_file(name, parent)
    except OSError:
        if look(cursor, change.path) == seen:
            raise
        return None
    try:
        kept_at, digest = append(descriptor, seen.size_bytes, kept)
    finally:
        os.close(descriptor)
    if look(cursor, change.path) != seen or change.before.digest not in (b"", digest):
        return None
    return replace(change, before=replace(seen, digest=digest), kept_at=kept_at)


@contextmanager
def _reported(what: str, remedy: str) -> Iterator[Place]:
    """Turn a failure of the disk into one line about the path that was worked on; an empty one is the workspace."""
    at = Place()
    try:
        yield at
    except OSError as failure:
        place = repr(shown_path(at.path)) if at.path else "the workspace"
        raise TryLater(f"{place} {what} ({failure.strerror or failure})", remedy) from failure
