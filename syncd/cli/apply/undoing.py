"""Takes back the last `apply`, and what it recorded as sent."""

from __future__ import annotations

import os
from collections.abc import Collection

import msgspec

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import ChunkStore
from syncd.cli.agent_side import path_rules, scratch_folder, writer_of
from syncd.cli.options import CLOCK
from syncd.core.directories import Directories
from syncd.core.errors import NeedsPerson, TryLater
from syncd.core.settings import Config
from syncd.daemon.build import folders_of, target_of
from syncd.merge.file_copy import digest_of
from syncd.merge.workspace_writer import Undone
from syncd.model.entry import Kind, SeenEntry, arrived_digest
from syncd.model.manifest import Manifest
from syncd.remote.target import Target
from syncd.sandbox.changes_there import ChangesThere
from syncd.sandbox.saved_versions import SavedVersions
from syncd.sandbox.saved_versions_rules import SentEntry, Why
from syncd.selection.selection import GITIGNORE, SYNCDIGNORE
from syncd.sync.sync_state import SyncState
from syncd.sync.taken import TakenPath, TakenRows, TakenStore, decode_taken, is_as, with_taken


def undo(config: Config) -> Undone:
    """Take it back. Raises `TryLater`, `Locked`.

    A sandbox's version that has been overwritten since by what was merged with it is saved before. What the rules leave
    out by now stays as it is, unless it was asked for.
    """
    folders = folders_of(config, os.environ)

    def leave_out(note: bytes, paths: Collection[str]) -> Collection[str]:
        taken = _taken(note)
        return {*_left_out(config, taken, paths), *_unsaved(config, SavedVersions(folders.state, CLOCK), taken)}

    return writer_of(config).undo(leave_out)


def record_back(config: Config, note: bytes, paths: Collection[str]) -> None:
    """Record that what an `apply` took of these paths counts as sent no more, and save what only the workspace has.

    It is done before the workspace changes: a process that dies in between leaves what the agent changed for the next
    sync to find, and one that died after it would leave that to be overwritten as ours.
    """
    taken = [each for each in _taken(note) if each.path in paths]
    if not taken:
        return
    folders = folders_of(config, os.environ)
    try:
        target: Target | None = target_of(config, os.environ)
    except NeedsPerson:
        target = None
    store, sync_state = TakenStore(folders.state), SyncState(folders.state)
    base = sync_state.initialized(target)[0] if target is not None else None
    # Of another sandbox than the one it came from it is not known that it has it.
    known = with_taken(base, store.load(target)) if base is not None and target is not None else Manifest()
    unanswered = sync_state.possibly_applied(target) if target is not None else ()
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
        _save(config, folders, target.sandbox_id if target is not None else "", only_here)
        if again and target is not None:
            store.save(target, again)
            ChangesThere(folders.state, target).note((each.path for each in again), lambda _: False)
    except OSError as failure:
        raise TryLater(
            f"what counts as sent cannot be recorded ({failure.strerror}), so nothing is undone",
            "make the state folder writable",
        ) from None


def _is_there(known: Manifest, taken: TakenPath) -> bool:
    """True if the sandbox has what was taken: it counts as arrived, or it was not sent and is the agent's still."""
    return is_as(known, taken.path, taken.after) or is_as(known, taken.path, taken.before)


def _taken(note: bytes) -> list[TakenPath]:
    return decode_taken(msgspec.msgpack.decode(note, type=TakenRows)) if note else []


def _left_out(config: Config, taken: list[TakenPath], paths: Collection[str]) -> Collection[str]:
    """Return the paths that the rules leave out by now; rules that the `apply` itself brought do not count."""
    if any(os.path.basename(path) in (GITIGNORE, SYNCDIGNORE) for path in paths):
        return ()
    rules = path_rules(config)
    asked_for = {each.path for each in taken if each.is_left_out}
    return [path for path in paths if path not in asked_for and rules.leave_out(path, False)]


def _unsaved(config: Config, saved: SavedVersions, taken: list[TakenPath]) -> list[str]:
    """Save what was asked for against the rules, and return what cannot be: a sync may have removed it there since."""
    try:
        sandbox_id = target_of(config, os.environ).sandbox_id
    except NeedsPerson:
        sandbox_id = ""
    unsaved = []
    for each in taken:
        entry = each.after
        if not each.is_left_out or entry is None or entry.kind is not Kind.FILE:
            continue
        copy = os.path.join(config.workspace.path, each.path)
        try:
            digest = _digest_of_file(copy)  # a merge has both sides, and is the only copy of theirs by then
            there = SeenEntry(Kind.FILE, entry.mode, entry.mtime_s, entry.size_bytes, digest=digest, copy=copy)
            if saved.holder_of(each.path, digest) is None:
                saved.save(Why.CONFLICT, sandbox_id, {each.path: there})
        except OSError:  # it changed since, or there is no room: then it stays
            unsaved.append(each.path)
    return unsaved


def _digest_of_file(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return digest_of(descriptor)
    finally:
        os.close(descriptor)


def _save(config: Config, folders: Directories, sandbox_id: str, taken: list[TakenPath]) -> None:
    """Save the sandbox's versions that were taken or merged here, and that it may not have any more.

    Their bytes are those that `apply` kept, or still here.
    """
    contents, saved = BaseStore(folders.spool, ChunkStore(folders.spool)), SavedVersions(folders.state, CLOCK)
    with scratch_folder(folders.spool) as folder:
        versions: dict[str, SeenEntry] = {}
        bases: dict[str, SentEntry] = {}
        for number, each in enumerate(taken):
            entry = each.after
            if entry is None or entry.is_directory or (entry.digest and saved.holder_of(each.path, entry.digest)):
                continue
            copy = "" if entry.kind is Kind.SYMLINK else os.path.join(folder, str(number))
            content = contents.get(each.path, entry.digest) if copy else None
            if content is not None:
                with open(copy, "xb") as file:
                    file.write(content)
            elif copy and _is_here(config, each.path, entry.digest):
                copy = os.path.join(config.workspace.path, each.path)
            elif copy:
                continue
            versions[each.path] = SeenEntry(
                entry.kind, entry.mode, entry.mtime_s, entry.size_bytes, entry.target, digest=entry.digest, copy=copy
            )
            if each.before is not None:
                bases[each.path] = each.before, contents.get(each.path, arrived_digest(each.before))
        if versions:
            saved.save(Why.CONFLICT, sandbox_id, versions, bases)


def _is_here(config: Config, path: str, digest: bytes) -> bool:
    try:
        return _digest_of_file(os.path.join(config.workspace.path, path)) == digest
    except OSError:
        return False
