"""Takes back the last `apply`, and what it recorded as sent."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import closing, suppress

import click
from msgspec.structs import replace

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import ChunkStore
from syncd.cli.agent_side import no_sync_begins, path_rules, scratch_folder, with_copy, writer_of
from syncd.cli.apply.execution import print_lists
from syncd.cli.options import CLOCK, note_done
from syncd.core.errors import ExitCode, NeedsPerson, TryLater
from syncd.core.interrupt import Interrupt, interrupting
from syncd.core.settings import MAIN, AcquireKeys, Config, SandboxKeys
from syncd.core.text import counted, shown_path
from syncd.core.waiter import Waiter
from syncd.daemon.build import folders_of, target_of
from syncd.merge.workspace_writer import OpenConflicts, WorkspaceWriter, Written, next_undone
from syncd.model.entry import Kind, SeenEntry, arrived_digest
from syncd.model.manifest import Manifest
from syncd.remote.target import Target
from syncd.sandbox.sandbox_state import SandboxState, TakenPath, is_as
from syncd.sandbox.saved_versions import SavedVersions, SentEntry, Why
from syncd.selection.selection import RULE_FILES
from syncd.store.state_db import StateDb


def undo_and_tell(config: Config, sandbox: str | None, *, as_json: bool) -> int:
    """Take the last `apply` back while no sync is under way, and say what became of each path.

    Raises `click.UsageError` if a `sandbox` is named and the last one was of another.
    """
    with closing(StateDb(folders_of(config, os.environ).state)) as db:
        last = next_undone(db)
        if sandbox is not None and last is not None and sandbox != last.sandbox:
            raise click.UsageError(f"The last `apply` was of {last.sandbox}; `syncd apply --undo` takes that one back.")
        config = written_config(config, db)
    waiter = Waiter(Interrupt(), CLOCK)
    with interrupting(waiter.interrupt), no_sync_begins(config, waiter):  # a stop leaves nothing half undone
        undone = undo(config)
        if undone.done:
            note_done("all was taken back", "nothing is left to do")
    if as_json:
        print_lists(stays=undone.left, undone=undone.done)
        return ExitCode.DONE
    for path in undone.done:
        click.echo(f"undone    {shown_path(path)}")
    for path in undone.left:
        click.echo(f"stays     {shown_path(path)}: changed since the apply, or excluded by a rule")
    count = counted(len(undone.done), "path")
    click.echo(f"{count} as before the apply" if undone.done else "nothing to undo")
    return ExitCode.DONE


def written_config(config: Config, db: StateDb) -> Config:
    """The configuration of the sandbox whose write would be taken back next; one without an id if it has none now."""
    last = next_undone(db)
    name = MAIN if last is None else last.sandbox
    if name in config.sandboxes:
        return config.for_sandbox(name)
    return replace(config, sandbox=SandboxKeys(acquire=AcquireKeys()), sandbox_name=name)


def undo(config: Config) -> Written:
    """Take it back. Raises `TryLater`, `Locked`.

    A sandbox's version that has been overwritten since by what was merged with it is saved before. What the rules leave
    out by now stays as it is, unless it was asked for; so does what was asked for and cannot be saved.
    """
    with closing(StateDb(folders_of(config, os.environ).state)) as db:

        def stays(taken: Sequence[TakenPath], paths: Collection[str]) -> Collection[str]:
            return {*_left_out(config, taken, paths), *_unsaved(config, db, taken)}

        return writer_of(config, db).undo(stays)


def record_back(config: Config, db: StateDb, taken: Sequence[TakenPath]) -> None:
    """Record that these paths count as sent no more, and save what only the workspace has of them.

    It is done before the workspace changes, in one transaction with the begin of an undo: a process that dies in
    between leaves what the agent changed for the next sync to find, and one that died after it would leave that to be
    overwritten as ours. Of a write that was killed a sync may have recorded that both sides have the same. Raises
    `TryLater`.
    """
    if not taken:
        return
    target = _target(config)
    if target is not None and _came_from(config, db) != target.sandbox_id:
        target = None  # what the present one has of it was sent from here
    state = None if target is None else SandboxState(db, target)
    base = None if state is None else state.base
    unanswered = () if state is None else state.unanswered
    # Of another sandbox than the one it came from it is not known that it has it.
    known = Manifest() if base is None else base
    only_here = [
        each
        for each in taken
        if not each.is_left_out
        and (base is None or not _is_there(known, each) or any(each.path in sent for sent in unanswered))
    ]
    # What was asked for against the rules is the agent's own, also if it was sent since.
    back = [
        TakenPath(each.path, each.after, None if each.is_left_out else each.before)
        for each in taken
        if each.is_left_out or each.before != each.after
    ]
    again = [each for each in back if is_as(known, each.path, each.before)]
    try:
        _save(config, db, only_here)
        if again and state is not None:
            state.record_taken(again, differing=[each.path for each in again])
        if target is not None:
            OpenConflicts(db, target.owner).decide([each.path for each in taken], undone=True)
    except OSError as failure:
        raise TryLater(
            f"what counts as sent cannot be recorded ({failure.strerror}), so nothing is undone",
            "make the state folder writable",
        ) from None


def _left_out(config: Config, taken: Sequence[TakenPath], paths: Collection[str]) -> Collection[str]:
    """Return the paths that the rules leave out by now; rules that the `apply` itself brought do not count."""
    if any(os.path.basename(path) in RULE_FILES for path in paths):
        return ()
    rules = path_rules(config)
    asked_for = {each.path for each in taken if each.is_left_out}
    return [path for path in paths if path not in asked_for and rules.leave_out(path, False)]


def _unsaved(config: Config, db: StateDb, taken: Sequence[TakenPath]) -> list[str]:
    """Save what was asked for against the rules, as a sync may have removed it there since.

    Returns the paths that cannot be saved.
    """
    saved, unsaved = SavedVersions(db, CLOCK, config.sandbox_name), []
    for path, after in ((each.path, each.after) for each in taken if each.is_left_out):
        if after is None or after.kind is not Kind.FILE:
            continue
        try:
            digest = _digest_here(config, db, path)  # a merge has both sides, and is the only copy of theirs by then
            if not digest:
                unsaved.append(path)
            elif saved.holder_of(path, there := replace(after, digest=digest)) is None:
                there = with_copy(there, _place(config, path))
                saved.save(Why.CONFLICT, _came_from(config, db), {path: there})
        except (OSError, TryLater):  # it changed since, or there is no room: then it stays
            unsaved.append(path)
    return unsaved


def _save(config: Config, db: StateDb, taken: list[TakenPath]) -> None:
    """Save the sandbox's versions that were taken or merged here, and that it may not have any more.

    Their bytes are those that `apply` kept, or still here.
    """
    saved, spool = SavedVersions(db, CLOCK, config.sandbox_name), folders_of(config, os.environ).spool
    contents = BaseStore(spool, ChunkStore(spool))
    with scratch_folder(spool, config.sandbox_name) as folder:
        versions: dict[str, SeenEntry] = {}
        bases: dict[str, SentEntry] = {}
        for number, (path, before, entry) in enumerate((each.path, each.before, each.after) for each in taken):
            if entry is None or entry.is_directory or saved.holder_of(path, entry):
                continue
            copy = ""
            if entry.kind is not Kind.SYMLINK:
                content = contents.get(path, entry.digest)
                if content is not None:
                    copy = os.path.join(folder, str(number))
                    with open(copy, "xb") as file:
                        file.write(content)
                elif _digest_here(config, db, path) == entry.digest != b"":
                    copy = _place(config, path)
                else:
                    continue
            versions[path] = with_copy(entry, copy)
            if before is not None:
                bases[path] = before, contents.get(path, arrived_digest(before))
        if versions:
            saved.save(Why.CONFLICT, _came_from(config, db), versions, bases)


def _target(config: Config) -> Target | None:
    """Return the sandbox, None where none is known now."""
    with suppress(NeedsPerson):
        return target_of(config, os.environ)
    return None


def sandbox_id(config: Config) -> str:
    """Return the sandbox's id, empty where none is known now."""
    target = _target(config)
    return "" if target is None else target.sandbox_id


def _came_from(config: Config, db: StateDb) -> str:
    """Return the id of the sandbox of the write that is taken back."""
    last = next_undone(db)
    return sandbox_id(config) if last is None or not last.sandbox_id else last.sandbox_id


def _place(config: Config, path: str) -> str:
    return os.path.join(config.workspace.path, path)


def _digest_here(config: Config, db: StateDb, path: str) -> bytes:
    return WorkspaceWriter(config.workspace.path, db, CLOCK).look([path])[path].digest


def _is_there(known: Manifest, taken: TakenPath) -> bool:
    """True if the sandbox has what was taken: it counts as arrived, or it was not sent and is the agent's still."""
    return is_as(known, taken.path, taken.after) or is_as(known, taken.path, taken.before)
