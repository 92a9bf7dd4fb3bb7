"""Takes back the last `apply`, and what it recorded as sent."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import closing, suppress

import click
from msgspec import Struct
from msgspec.structs import replace

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import ChunkStore
from syncd.cli.agent_side import no_sync_begins, path_rules, scratch_folder, writer_of
from syncd.cli.apply.execution import print_lists
from syncd.cli.options import CLOCK
from syncd.core.directories import Directories
from syncd.core.errors import ExitCode, NeedsPerson, TryLater
from syncd.core.settings import Config
from syncd.core.text import counted, shown_path
from syncd.daemon.build import folders_of, target_of
from syncd.merge.workspace_writer import WorkspaceWriter, Written
from syncd.model.entry import Entry, Kind, SeenEntry, arrived_digest
from syncd.model.manifest import Manifest
from syncd.remote.target import Target
from syncd.sandbox.sandbox_content import TakenPath, is_as
from syncd.sandbox.sandbox_state import SandboxState
from syncd.sandbox.saved_versions import SavedVersions
from syncd.sandbox.saved_versions_rules import SentEntry, Why
from syncd.selection.selection import GITIGNORE, SYNCDIGNORE
from syncd.store.state_db import StateDb


def undo_and_tell(config: Config, *, as_json: bool) -> int:
    """Take the last `apply` back while no sync is under way, and say what became of each path."""
    with no_sync_begins(config):
        undone = undo(config)
    if as_json:
        print_lists(stays=undone.left, undone=undone.done)
        return ExitCode.DONE
    for path in undone.done:
        click.echo(f"undone    {shown_path(path)}")
    for path in undone.left:
        click.echo(f"stays     {shown_path(path)}: changed since the apply, or left out by a rule")
    count = counted(len(undone.done), "path")
    click.echo(f"{count} as before the apply" if undone.done else "nothing to undo")
    return ExitCode.DONE


def undo(config: Config) -> Written:
    """Take it back. Raises `TryLater`, `Locked`.

    A sandbox's version that has been overwritten since by what was merged with it is saved before. What the rules leave
    out by now stays as it is, unless it was asked for.
    """
    with closing(StateDb(folders_of(config, os.environ).state)) as db:
        return writer_of(config, db).undo(_last_apply(config, db).stays)


def record_back(config: Config, db: StateDb, taken: Sequence[TakenPath]) -> None:
    """Do what `_LastApply.before` does. Raises `TryLater`."""
    if taken:
        _last_apply(config, db).before(taken)


def _last_apply(config: Config, db: StateDb) -> _LastApply:
    folders = folders_of(config, os.environ)
    target: Target | None = None
    with suppress(NeedsPerson):
        target = target_of(config, os.environ)
    writer = WorkspaceWriter(config.workspace.path, db)
    return _LastApply(config, folders, db, target, writer, SavedVersions(db, CLOCK))


class _LastApply(Struct, frozen=True):
    """The last `apply`, by what it left in the journal. `target` is None where no sandbox is known now."""

    config: Config
    folders: Directories
    db: StateDb
    target: Target | None
    writer: WorkspaceWriter
    saved: SavedVersions

    def stays(self, taken: Sequence[TakenPath], paths: Collection[str]) -> Collection[str]:
        """Return the paths that stay as they are: excluded by now, or not to be saved."""
        return {*self._left_out(taken, paths), *self._unsaved(taken)}

    def before(self, taken: Sequence[TakenPath]) -> None:
        """Record that these paths count as sent no more, and save what only the workspace has of them.

        It is done before the workspace changes, in one transaction with the begin of an undo: a process that dies in
        between leaves what the agent changed for the next sync to find, and one that died after it would leave that to
        be overwritten as ours. Of a write that was killed a sync may have recorded that both sides have the same.
        """
        target = self.target
        state = SandboxState(self.db, target) if target is not None else None
        base = state.base if state is not None else None
        # Of another sandbox than the one it came from it is not known that it has it.
        known = Manifest() if base is None else base
        unanswered = state.unanswered if state is not None else ()
        only_here = [
            each
            for each in taken
            if not each.is_left_out
            and (base is None or not _is_there(known, each) or any(each.path in sent for sent in unanswered))
        ]
        # What was asked for against the rules is the agent's own, also if it was sent since.
        back = [TakenPath(each.path, each.after, None if each.is_left_out else each.before) for each in taken]
        again = [each for each in back if is_as(known, each.path, each.before)]
        try:
            self._save(only_here)
            if again and target is not None and state is not None:
                state.record_taken(again, differing=[each.path for each in again])
        except OSError as failure:
            raise TryLater(
                f"what counts as sent cannot be recorded ({failure.strerror}), so nothing is undone",
                "make the state folder writable",
            ) from None

    def _left_out(self, taken: Sequence[TakenPath], paths: Collection[str]) -> Collection[str]:
        """Return the paths that the rules leave out by now; rules that the `apply` itself brought do not count."""
        if any(os.path.basename(path) in (GITIGNORE, SYNCDIGNORE) for path in paths):
            return ()
        rules = path_rules(self.config)
        asked_for = {each.path for each in taken if each.is_left_out}
        return [path for path in paths if path not in asked_for and rules.leave_out(path, False)]

    def _unsaved(self, taken: Sequence[TakenPath]) -> list[str]:
        """Save what was asked for against the rules, as a sync may have removed it there since.

        Returns the paths that cannot be saved.
        """
        unsaved = []
        for each in taken:
            if not each.is_left_out or each.after is None or each.after.kind is not Kind.FILE:
                continue
            try:
                digest = self._digest_here(each.path)  # a merge has both sides, and is the only copy of theirs by then
                if not digest:
                    unsaved.append(each.path)
                elif self.saved.holder_of(each.path, digest) is None:
                    there = _seen(replace(each.after, digest=digest), self._place(each.path))
                    self.saved.save(Why.CONFLICT, self._sandbox_id, {each.path: there})
            except (OSError, TryLater):  # it changed since, or there is no room: then it stays
                unsaved.append(each.path)
        return unsaved

    def _save(self, taken: list[TakenPath]) -> None:
        """Save the sandbox's versions that were taken or merged here, and that it may not have any more.

        Their bytes are those that `apply` kept, or still here.
        """
        contents = BaseStore(self.folders.spool, ChunkStore(self.folders.spool))
        with scratch_folder(self.folders.spool) as folder:
            versions: dict[str, SeenEntry] = {}
            bases: dict[str, SentEntry] = {}
            for number, each in enumerate(taken):
                entry, copy = each.after, ""
                if entry is None or entry.is_directory:
                    continue
                if entry.digest and self.saved.holder_of(each.path, entry.digest):
                    continue
                if entry.kind is not Kind.SYMLINK:
                    content = contents.get(each.path, entry.digest)
                    if content is not None:
                        copy = os.path.join(folder, str(number))
                        with open(copy, "xb") as file:
                            file.write(content)
                    elif self._digest_here(each.path) == entry.digest != b"":
                        copy = self._place(each.path)
                    else:
                        continue
                versions[each.path] = _seen(entry, copy)
                if each.before is not None:
                    bases[each.path] = each.before, contents.get(each.path, arrived_digest(each.before))
            if versions:
                self.saved.save(Why.CONFLICT, self._sandbox_id, versions, bases)

    @property
    def _sandbox_id(self) -> str:
        return "" if self.target is None else self.target.sandbox_id

    def _place(self, path: str) -> str:
        return os.path.join(self.config.workspace.path, path)

    def _digest_here(self, path: str) -> bytes:
        return self.writer.look([path])[path].digest


def _is_there(known: Manifest, taken: TakenPath) -> bool:
    """True if the sandbox has what was taken: it counts as arrived, or it was not sent and is the agent's still."""
    return is_as(known, taken.path, taken.after) or is_as(known, taken.path, taken.before)


def _seen(entry: Entry, copy: str) -> SeenEntry:
    return SeenEntry(
        entry.kind, entry.mode, entry.mtime_s, entry.size_bytes, entry.target, digest=entry.digest, copy=copy
    )
