"""Writes to the workspace, all or nothing, so that they can be undone.

The order of a write, each line flushed before the next one begins:

1. the journal (a record in the state's database) says what is to be changed, from what to what, and the names of the
   temporary files;
2. the bytes that will be replaced are kept as blobs, which the journal holds, the new ones are written to temporary
   files;
3. the workspace is changed (`path_changes`);
4. the journal says that the write is done, and replaces that of the write before; the caller records in the same
   transaction what it means.

After a death in between, each path that is as the write left it is restored. An undo begins like a write that was
killed in 3, in one transaction with what counts as sent no more, and goes the same way. So both may be killed and run
again. Of files, the journal knows digests: a path that someone changed since is recognized, and left as it is.

What counts as sent no more is recorded, and what only the workspace has of the agent's is saved, before an undo changes
anything: a process that dies in between leaves what the agent changed for the next sync to find. Recorded afterwards
it would be overwritten as ours.

In the state's database, `pending` is the record of a write or an undo that has not ended, `journal` that of the last
write that did. The token of a write is also in the names of its temporary files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from msgspec import Struct
from msgspec.structs import replace

from syncd.archive.base_store import LARGEST_MERGED_BYTES, digest_at
from syncd.core import safe_open
from syncd.core.clock import Clock
from syncd.core.directories import Lock, holder
from syncd.core.errors import Locked, TryLater
from syncd.core.settings import MAIN
from syncd.core.text import shown_path
from syncd.merge.path_changes import (
    JournalPhase,
    PathChange,
    PathChanges,
    Place,
    check_plan,
    look,
    look_with_digest,
    needed_changes,
    remove_drafts,
)
from syncd.model.entry import Entry, Kind, SeenEntry, arrived_digest, with_copy
from syncd.model.manifest import archive_order, directories_above
from syncd.remote.target import Target
from syncd.sandbox.sandbox_content import TakenPath, is_as
from syncd.sandbox.sandbox_state import SandboxState
from syncd.sandbox.saved_versions import SavedVersions, SentEntry, Why
from syncd.selection.selection import RULE_FILES
from syncd.store.blobs import Blobs
from syncd.store.state_db import Record, StateDb
from syncd.sync.agent_work import IsExcluded

_COST = "what it wrote to the workspace cannot be taken back by `syncd apply --undo`"
_HOLDER = b"journal"
_AGAIN = "run `syncd apply --undo` to put back the rest"


class Written(Struct, frozen=True):
    """The result of a write or an undo: paths of the plan, and directories that these needed, sorted.

    `done` are as planned, or as before the write. `left` were changed since the plan saw them, or since the write, and
    are as they were; an undo also leaves what it was to leave out.
    """

    done: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class JournalEntry(Struct, frozen=True, kw_only=True):
    """One write. `taken` is what counts as sent by it; `left` are paths that an undo, which was begun, leaves.

    Of `decided` paths nothing changed here, but an undo takes back what counts as sent of them, too. `sandbox` is the
    name of the sandbox that it came from, and `sandbox_id` the id that this had then, empty if none was known.
    `theirs` are the digests of the agent's files that were merged, or not taken, as a person decided.
    """

    token: str
    taken: tuple[TakenPath, ...]
    changes: tuple[PathChange, ...] = ()
    left: tuple[str, ...] = ()
    decided: tuple[str, ...] = ()
    sandbox: str = MAIN
    sandbox_id: str = ""
    theirs: tuple[bytes, ...] = ()


def replaced(changes: Iterable[PathChange]) -> set[bytes]:
    """Return the digests of the files that are replaced."""
    return {each.before.digest for each in changes if each.before.kind is Kind.FILE}


class WorkspaceWriter:
    """Writes to one workspace, one process at a time.

    What is written comes from the `sandbox` of this name. `target_of` returns the sandbox of a name, None where none is
    known now. Whenever something is taken back, also what was killed, what counts as sent by it is, too.
    """

    def __init__(
        self,
        workspace: str,
        db: StateDb,
        clock: Clock,
        target_of: Callable[[str], Target | None] = lambda _: None,
        sandbox: str = MAIN,
    ) -> None:
        self._workspace = workspace
        self._db = db
        self._clock = clock
        self._blobs = Blobs(db)
        self._target_of = target_of
        self._sandbox = sandbox
        self._done = Record(db, "journal", JournalEntry, _COST)
        self._pending = Record(db, "pending", JournalEntry, _COST)
        self._folder = os.path.join(db.folder, "apply")

    @property
    def killed(self) -> JournalEntry | None:
        """The write or undo that was killed; None if none was. Raises `OSError`."""
        return self._pending.read()

    @property
    def is_half_done(self) -> bool:
        """True if a write or an undo was killed and not taken back yet, and none is under way. Raises `OSError`."""
        return self.killed is not None and holder(self._folder) is None

    @property
    def last(self) -> JournalEntry | None:
        """The last write that ended; None where there is none. Raises `OSError`."""
        return self._done.read()

    def look(self, paths: Iterable[str]) -> dict[str, Entry]:
        """Return what is at each path now, with digests, as `PathChange.before` takes it. Raises `TryLater`.

        Nothing is behind a link or a file, for the plan may put a directory there. What this person may not read, or
        changes meanwhile, is UNREAD.
        """
        found: dict[str, Entry] = {}
        with _reported("cannot be read", "let syncd read it") as at, self._cursor() as cursor:
            for path in sorted(paths, key=archive_order):
                at.path = path
                found[path] = look_with_digest(cursor, path)
        return found

    def write(
        self,
        plan: Sequence[PathChange],
        taken: Iterable[TakenPath] = (),
        record: Callable[[Written], None] = lambda _: None,
        decided: Collection[str] = (),
        theirs: Sequence[SeenEntry] = (),
    ) -> Written:
        """Change the workspace as planned. `taken` is what may count as sent then, also of `decided` paths, which stay.

        Of `theirs`, which the workspace does not get as they are, the contents are kept until the next write.

        `record` gets the result once all is in place, and what it changes in the database is in one transaction with
        the end of the write; if it raises, all is taken back.

        A write that was killed is taken back first. One that neither changes nor decides anything leaves the one before
        undoable.

        Raises `TryLater` if anything cannot be written, after everything was taken back, and `ValueError` for a plan
        that contradicts itself.
        """
        check_plan(plan)
        with self._locked():
            self._take_back_killed()
            left: set[str] = set()
            with _reported("cannot be read", "nothing was changed; let syncd read it") as at, self._cursor() as cursor:
                changes = needed_changes(cursor, plan, JournalPhase.DONE, left=left, at=at)
            if not changes and not decided:  # it needs no room on the disk
                written = Written(left=tuple(sorted(left)))
                record(written)
                return written
            target = self._target_of(self._sandbox)
            entry = JournalEntry(
                token=os.urandom(6).hex(),
                taken=tuple(taken),
                changes=tuple(changes),
                decided=tuple(decided),
                sandbox=self._sandbox,
                sandbox_id="" if target is None else target.sandbox_id,
                theirs=tuple(each.digest for each in theirs),
            )
            return self._write(entry, left, record, theirs)

    def undo(self, is_excluded: IsExcluded = lambda _, __: False) -> Written:
        """Take back a write that was killed, else the last one, which leaves alone what the rules exclude by now.

        Those that it brought itself do not count, nor does one for what was asked for. Raises `TryLater`; then it can
        be run again.
        """
        with self._locked():
            last = self.last
            if last is None or self.killed is not None:
                return self._take_back_killed()
            included = {each.path for each in last.taken if each.is_excluded}
            paths = {each.path for each in last.changes} - included - directories_above(included)
            brings_rules = any(os.path.basename(each.path) in RULE_FILES for each in last.changes)
            left = () if brings_rules else sorted(path for path in paths if is_excluded(path, False))
            changes = tuple(each for each in last.changes if each.path not in left)
            return self._take_back(replace(last, changes=changes, left=tuple(left)), JournalPhase.DONE)

    def finish_interrupted(self) -> Written:
        """Take back a write that was killed, and finish such an undo. Raises `TryLater`; then it can be run again."""
        with self._locked():
            return self._take_back_killed()

    def _cursor(self) -> safe_open.DirCursor:
        return safe_open.DirCursor(safe_open.open_workspace(self._workspace))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from writing to this workspace. Raises `Locked` and `TryLater`.

        A daemon lets several commands write, and when it ends, the next command does so beside those.
        """
        hint = "see that syncd's state folder can be written to, and has room"
        with _reported("cannot be changed", hint), ExitStack() as stack:
            os.makedirs(self._folder, 0o700, exist_ok=True)
            try:
                stack.enter_context(Lock(self._folder))
            except Locked:
                what = "another syncd is writing to this workspace now"
                raise Locked(what, "run the command again when it has ended") from None
            yield

    def _hold(self) -> None:
        """Keep the contents that the journals need, in the transaction that is open. Raises `OSError`."""
        self._blobs.let_go(_HOLDER)
        for record in (self._done, self._pending):
            if (entry := record.read()) is not None:
                self._blobs.hold(_HOLDER, {*replaced(entry.changes), *entry.theirs})

    # -- write

    def _write(
        self, entry: JournalEntry, left: set[str], record: Callable[[Written], None], theirs: Sequence[SeenEntry]
    ) -> Written:
        try:
            with self._db.transaction():
                self._pending.save(entry)
                self._hold()
            kept = self._keep(entry, left, theirs)
            remedy = "nothing was changed; free the way or some disk space, then run it again"
            with _reported("cannot be written", remedy) as at:
                left |= PathChanges(self._workspace, entry.token, kept, at).carry_out()
            done = tuple(each for each in entry.changes if each.path not in left)
            written = Written(tuple(sorted(each.path for each in done)), tuple(sorted(left)))
            with self._db.transaction():
                record(written)
                if done or entry.decided:  # the write before cannot be undone any more
                    self._done.save(replace(entry, changes=done))
                self._pending.remove()
                self._hold()
        except BaseException:
            # A failure in this, which is rare, takes the place of the first one: it is the one to act on.
            self._take_back(entry, JournalPhase.CHANGING)
            raise
        self._blobs.clean_up(self._clock.wall_s())
        return written

    def _keep(self, entry: JournalEntry, left: set[str], theirs: Sequence[SeenEntry]) -> list[PathChange]:
        """Copy the contents that an undo may need, and return the changes; a file that has changed is left."""
        found: list[PathChange] = []
        with (
            _reported("cannot be kept for an undo", "nothing was changed; see that it can be read and kept") as at,
            self._cursor() as cursor,
        ):
            for change in entry.changes:
                at.path = change.path
                if change.before.kind is Kind.FILE and not self._keep_file(cursor, change):
                    left.add(change.path)
                else:
                    found.append(change)
            at.path = ""
            for each in theirs:
                self._blobs.add(each.copy, each.digest)
            self._blobs.flush({*replaced(found), *entry.theirs})
        return found

    def _keep_file(self, cursor: safe_open.DirCursor, change: PathChange) -> bool:
        """Copy a file that will be replaced; return False if it has changed since it was seen."""
        parent, name = cursor.parent_of(change.path)
        try:
            self._blobs.add(name, change.before.digest, parent)
        except OSError:
            if look(cursor, change.path) == replace(change.before, digest=b""):
                raise
            return False
        return True

    # -- undo

    def _take_back_killed(self) -> Written:
        killed = self.killed
        return Written() if killed is None else self._take_back(killed, JournalPhase.CHANGING)

    def _take_back(self, entry: JournalEntry, phase: JournalPhase) -> Written:
        """Restore what is as the write left it, and remove its journal."""
        left: set[str] = set(entry.left)
        with _reported("cannot be put back", _AGAIN) as at:
            with self._cursor() as cursor:
                changes = self._to_restore(cursor, entry, phase, left=left, at=at)
            at.path = ""
            paths = {*entry.decided, *(each.path for each in changes)}
            taken = [each for each in entry.taken if each.path in paths]
            if phase is not JournalPhase.DONE:
                # What counts as gone there by now, a sync found or made so: it has no version to be given back.
                taken = [each for each in taken if each.after is not None]
            target = self._target_of(entry.sandbox)
            state = None  # another sandbox of that name got from here what it has
            if taken and target is not None and target.sandbox_id == entry.sandbox_id:
                state = SandboxState(self._db, target)
            self._save_theirs(taken if state is None else _only_here(state, taken), entry.sandbox, entry.sandbox_id)
            with self._db.transaction():
                record_undone(state, taken)
                if phase is JournalPhase.DONE:
                    # What is left now stays left, also if this is killed and run again.
                    rest = tuple(each for each in entry.changes if each.path not in left)
                    self._pending.save(replace(entry, changes=rest, left=tuple(sorted(left))))
                    self._done.remove()
            if changes:
                left |= PathChanges(self._workspace, entry.token, changes, at).carry_out()
            at.path = ""
            with self._db.transaction():
                self._pending.remove()
                self._hold()
        self._blobs.clean_up(self._clock.wall_s())
        done = {*entry.decided, *(each.path for each in changes)} - left
        return Written(tuple(sorted(done)), tuple(sorted(left)))

    def _save_theirs(self, rows: Sequence[TakenPath], sandbox: str, sandbox_id: str) -> None:
        """Save the agent's versions that only the workspace has, before that changes. Raises `OSError`.

        Their bytes are those that the journal keeps, or still here.
        """
        saved = SavedVersions(self._db, self._clock, sandbox)
        held = saved.holders({each.path: each.after for each in rows if each.after is not None})
        versions: dict[str, SeenEntry] = {}
        bases: dict[str, SentEntry] = {}
        for path, before, after in ((each.path, each.before, each.after) for each in rows):
            if after is None or after.is_directory or after == before or path in held:
                continue
            copy = ""
            if after.kind is Kind.FILE:
                is_kept = self._blobs.is_whole(after.digest)
                copy = self._blobs.path(after.digest) if is_kept else os.path.join(self._workspace, path)
                if not is_kept and digest_at(copy) != after.digest:
                    continue
            versions[path] = with_copy(after, copy)
            if before is not None:
                is_small = before.size_bytes <= LARGEST_MERGED_BYTES
                bases[path] = before, self._blobs.content(arrived_digest(before)) if is_small else None
        if versions:
            saved.save(Why.CONFLICT, sandbox_id, versions, bases)

    def _to_restore(
        self, cursor: safe_open.DirCursor, entry: JournalEntry, phase: JournalPhase, *, left: set[str], at: Place
    ) -> list[PathChange]:
        """Return the changes that restore what was there, the journal's rows turned round.

        Paths that were changed since go to `left`, and those whose bytes are not kept any more. Temporary files are
        removed.
        """
        plan: list[PathChange] = []
        if phase is JournalPhase.CHANGING:
            # Before any look: one may be a second name of the file that is in place, whose ctime changes with it.
            remove_drafts(cursor, entry.token)
        for change in entry.changes:
            content = self._blobs.path(change.before.digest) if change.before.kind is Kind.FILE else ""
            plan.append(PathChange(change.path, change.after, change.before, content))
        changes = needed_changes(cursor, plan, phase, left=left, at=at)
        lost = {each.path for each in changes if each.content and not self._blobs.has(each.after.digest)}
        left |= lost  # what is there now is better than nothing
        return [each for each in changes if each.path not in lost]


def _only_here(state: SandboxState, taken: Sequence[TakenPath]) -> Sequence[TakenPath]:
    """Return the rows of which the sandbox may have the agent's version no more."""
    base, maybe = state.content.base, state.content.maybe
    if not state.content.is_known:
        return taken

    def is_there(each: TakenPath) -> bool:
        # It counts as arrived, or it was not sent and is the agent's still.
        return is_as(base, each.path, each.after) or is_as(base, each.path, each.before)

    return [
        each
        for each in taken
        # A sync may have removed what was asked for against the rules.
        if each.is_excluded or not is_there(each) or any(each.path in sent for sent in maybe)
    ]


def record_undone(state: SandboxState | None, taken: Sequence[TakenPath]) -> None:
    """Record that the rows count as sent no more, in the transaction that is open. Raises `OSError`.

    Of a write that was killed a sync may have recorded that both sides have the same.
    """
    if state is None:
        return
    known = state.content.base
    # What was asked for against the rules is the agent's own, also if it was sent since.
    back = [
        TakenPath(each.path, each.after, None if each.is_excluded else each.before)
        for each in taken
        if each.is_excluded or each.before != each.after
    ]
    again = [each for each in back if is_as(known, each.path, each.before)]
    if again:
        state.record_taken(again, differing=[each.path for each in again])
    OpenConflicts(state.db, state.target.owner).decide([each.path for each in taken], undone=True)


@contextmanager
def _reported(what: str, remedy: str) -> Iterator[Place]:
    """Turn a failure of the disk into one line about the path that was worked on; an empty one is the workspace."""
    at = Place()
    try:
        yield at
    except OSError as failure:
        place = f"'{shown_path(at.path)}'" if at.path else "the workspace"
        raise TryLater(f"{place} {what} ({failure.strerror or failure})", remedy) from failure


# -- what waits for a person


class _OpenConflict(Struct, frozen=True):
    version: str
    is_decided: bool = False


class OpenConflicts:
    """Records the paths of one sandbox whose last `apply` was a conflict, until they are decided.

    Whoever changes it has the workspace's lock. Its changes raise `OSError`.
    """

    def __init__(self, db: StateDb, owner: str) -> None:
        cost = "`syncd resolve` does not list conflicts whose version in the sandbox was overwritten"
        self._record = Record(db, "conflicts", dict[str, _OpenConflict], cost, owner)

    @property
    def versions(self) -> dict[str, str]:
        """The id of the saved version that has theirs, of each path that waits."""
        known = self._record.load() or {}
        return {path: each.version for path, each in known.items() if not each.is_decided}

    def note(self, found: Mapping[str, str], is_covered: Callable[[str], bool]) -> None:
        """Note what an `apply` found, with the versions' ids; of other paths that it covered none is left."""
        before = self._record.load() or {}
        others = {path: each for path, each in before.items() if not is_covered(path)}
        self._save(before, others | {path: _OpenConflict(id_) for path, id_ in found.items()})

    def decide(self, paths: Collection[str], *, undone: bool = False) -> None:
        """Note that these paths wait no more, or again, as that was taken back."""
        before = self._record.load() or {}
        decided = {path: replace(before[path], is_decided=not undone) for path in paths if path in before}
        self._save(before, before | decided)

    def _save(self, before: dict[str, _OpenConflict], after: dict[str, _OpenConflict]) -> None:
        if after != before:
            self._record.save(after)
