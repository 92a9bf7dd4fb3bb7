"""The account of both sides: who wrote what, and whether each version that anyone wrote is still somewhere.

A version is a path with a file's content and executable bit, or with a link's target. It is *settled* once a person or
the agent has replaced or removed it by hand, on either side: its author, or who had it before them. Every other one
must be on one of the sides, among the saved versions, in what the last `apply` keeps for its undo, or within a text
that was merged from it. What syncd itself writes and removes settles nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Protocol

from syncd.cli.agent_side import is_named
from syncd.core.clock import Clock, SystemClock
from syncd.merge.workspace_writer import WorkspaceWriter
from syncd.model import entry as model_entry
from syncd.model.entry import Kind
from syncd.sandbox.saved_versions import SavedVersion, SavedVersions
from syncd.store.state_db import StateDb
from tests.fuzz.model import FOLDER, Entry, changes, shown
from tests.fuzz.operations import tree
from tests.system.trees import Tree

DRAFT = ".syncd-"
Version = tuple[str, Entry]


class Account:
    """The account of one workspace. `sandbox` of its methods is what the current sandbox holds."""

    def __init__(self, workspace: Path, saved: SavedEntries, state_folder: str) -> None:
        self._workspace = workspace
        self.saved = saved
        self._state_folder = state_folder
        self._home: Tree = {}
        self._persons: set[Version] = set()
        self._agents: set[Version] = set()
        self._replaced_here: set[Version] = set()
        self._replaced_there: set[Version] = set()
        self._excused: set[Version] = set()
        self._made_at_s: dict[Version, float] = {}
        self._absorbed: dict[Version, set[Version]] = {}

    @property
    def home(self) -> Tree:
        """The workspace as it was after the last change that was noted."""
        return self._home

    # -- what happens

    def person_changed(self) -> None:
        """Note what a person did since the last change was noted."""
        now = self._look()
        for path, before, after in changes(self._home, now):
            if before is not None:
                self._replaced_here.add((path, before))
            if after is not None:
                self._persons.add((path, after))
                self._replaced_here.discard((path, after))
        self._home = now

    def person_gave_up(self, named: Collection[str]) -> None:
        """Note that a person lets a command replace these, with what is below them."""
        self._replaced_here.update(each for each in self._home.items() if is_named(each[0], named))

    def agent_changed(self, before: Tree, after: Tree, now_s: float) -> None:
        """Note what the agent did, by the sandbox's content before and after it."""
        for path, old, new in changes(before, after):
            if old is not None:
                self._replaced_there.add((path, old))
            if new is not None:
                self._agents.add((path, new))
                self._made_at_s[path, new] = now_s
                self._replaced_there.discard((path, new))

    def command_changed(self, sandbox: Tree, sent: Tree, merged_paths: Collection[str]) -> Iterator[str]:
        """Note what a command did to the workspace, and yield what it had no right to do.

        `sent` is what was put into the sandbox last as each path. It said that it merged `merged_paths`.
        """
        now = self._look()
        for path in merged_paths:
            theirs, here = sandbox.get(path), now.get(path)
            # A person may have made by hand, beside it, the very change that it would have made.
            is_by_hand = here == self._home.get(path)
            if theirs is not None and here is not None and is_by_hand and _is_within(theirs, here, sent.get(path)):
                self._absorbed.setdefault((path, theirs), set()).add((path, here))
        for path, before, after in changes(self._home, now):
            if after is not None and (not self._is_known(path, after) or self.is_agents_own(path, after)):
                # A merge may give just what the agent has, as that has all that the person changed.
                for each in (before,) if self._is_known(path, after) else (before, sandbox.get(path)):
                    if each is not None and each != after and _is_within(each, after, sent.get(path)):
                        self._absorbed.setdefault((path, each), set()).add((path, after))
                        for merged in self._absorbed.values():
                            if (path, each) in merged:
                                merged.add((path, after))
            version = (path, before)
            # What the agent's git brought back there, as an older commit has it, is the agent's too.
            if before is None or version not in self._persons or version in self._agents | self._replaced_there:
                continue
            # A sandbox that ended is not there any more to tell what its merge was of.
            is_of_one_that_ended = path in merged_paths and path not in sent
            if version not in self._replaced_here and version not in self._absorbed and not is_of_one_that_ended:
                yield f"a command replaced the person's {path!r} ({shown(before)}) by {shown(after)}"
        self._home = now

    def brought(self, before: Tree, sandbox: Tree) -> list[str]:
        """Return the paths that are as the agent once made them, and were not so before."""
        return [
            path
            for path, entry in self._home.items()
            if before.get(path) != entry
            and ((path, entry) in self._agents or (entry == FOLDER and sandbox.get(path) == FOLDER))
        ]

    def agents(self, before: Tree, after: Tree, sandbox: Tree) -> list[str]:
        """Return the paths that an undo changed here, and that were as the agent, who may have gone on, made them."""
        changed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
        return [path for path in changed if self._was_agents(path, before.get(path), sandbox.get(path))]

    def _was_agents(self, path: str, here: Entry | None, there: Entry | None) -> bool:
        if here is None or here == FOLDER:
            return here == there
        return (path, here) in self._agents and there is not None and (path, there) in self._agents

    def undone(self, before: Tree) -> set[Version]:
        """Return the agent's versions that were here before, and are no more."""
        return (before.items() - self._home.items()) & self._agents

    def excuse(self, path: str, entry: Entry) -> None:
        """Note that a version of the agent may be lost: nobody could look, or the rules leave it out."""
        self._excused.add((path, entry))

    def excuse_all(self, gone: Mapping[str, tuple[Entry, bool]]) -> None:
        """Note that these versions of the agent may be lost."""
        self._excused.update((path, entry) for path, (entry, _) in gone.items())

    def excuse_made_after(self, paths: Tree, since_s: float) -> None:
        """Excuse the agent's versions among these that were made so late."""
        for version in paths.items():
            if self._made_at_s.get(version, since_s) >= since_s:
                self._excused.add(version)

    # -- what must hold

    def is_settled(self, path: str, entry: Entry) -> bool:
        """True if a person replaced it at home, where it or a text merged from it had come, or has that text there."""
        came = {(path, entry), *self._absorbed.get((path, entry), ())}
        return bool(came & self._replaced_here) or self._is_merged_here(path, entry)

    def is_agents_own(self, path: str, entry: Entry) -> bool:
        """True if the agent made that version, and no person did."""
        return (path, entry) in self._agents and (path, entry) not in self._persons

    def is_at_home(self, path: str, entry: Entry) -> bool:
        """True if the workspace has it, or a text that was merged from it."""
        return self._home.get(path) == entry or self._is_merged_here(path, entry)

    def lost(self, sandbox: Tree) -> Iterator[tuple[str, str, str]]:
        """Yield the author, the path and a word on each version that is nowhere."""
        saved, kept = set(self.saved.all()), set(self._kept())

        def is_somewhere(path: str, entry: Entry) -> bool:
            if self._home.get(path) == entry or sandbox.get(path) == entry:
                return True
            return (path, by_digest(entry)) in saved or (path, by_digest(entry)) in kept

        settled = self._replaced_here | self._replaced_there
        for author, versions in (("person", self._persons), ("agent", self._agents)):
            for path, entry in sorted(versions - settled - self._excused, key=repr):
                merged = self._absorbed.get((path, entry), set())
                if not is_somewhere(path, entry) and not any(v in settled or is_somewhere(*v) for v in merged):
                    yield author, path, shown(entry)

    def differing(
        self, agents: Mapping[str, Entry | None], sandbox: Tree, named: set[str]
    ) -> Iterator[tuple[str, str]]:
        """Yield the agent's versions in the sandbox that an `apply` of all has not brought home, nor `named`."""
        for path, entry in sorted(sandbox.items()):
            is_new = self.is_agents_own(path, entry) and agents.get(path) == entry and not self.is_settled(path, entry)
            if is_new and path not in named and not self.is_at_home(path, entry):
                here = shown(self._home.get(path))
                yield path, f"{path!r} is {here} at home and the agent's {shown(entry)} in the sandbox"

    def _is_merged_here(self, path: str, entry: Entry) -> bool:
        return any(self._home.get(path) == each for _, each in self._absorbed.get((path, entry), ()))

    def _is_known(self, path: str, entry: Entry) -> bool:
        return (path, entry) in self._persons or (path, entry) in self._agents

    @property
    def has_unended_write(self) -> bool:
        """True if an `apply` or an undo was killed, or failed, and is still to be taken back or ended."""
        with closing(StateDb(self._state_folder)) as db:
            return WorkspaceWriter("", db, SystemClock()).killed is not None

    def _kept(self) -> Iterator[Version]:
        """Yield what the last `apply` replaced, as long as it can be undone."""
        with closing(StateDb(self._state_folder)) as db:
            writer = WorkspaceWriter("", db, SystemClock())
            found = [writer.killed, writer.last]
        for record in found:
            for change in record.changes if record is not None else ():
                before = change.before
                if before.kind is Kind.FILE:
                    yield change.path, ("file", bool(before.mode & 0o100), before.digest)
                elif before.kind is Kind.SYMLINK:
                    yield change.path, ("link", before.target)

    def _look(self) -> Tree:
        found = tree(self._workspace) if self._workspace.is_dir() else self._home
        return {path: entry for path, entry in found.items() if not os.path.basename(path).startswith(DRAFT)}


def drafts_in(top: Path) -> list[str]:
    """Return the temporary files of an `apply` that are there."""
    return [path for path in tree(top) if is_draft(path)] if top.is_dir() else []


def is_draft(path: str) -> bool:
    """True if that is the name of a temporary file of an `apply`."""
    return os.path.basename(path).startswith(DRAFT)


def _is_within(entry: Entry, merged: Entry, sent: Entry | None) -> bool:
    """True if a merged text has all lines that this one had and the one before it had not."""
    if entry[0] != "file" or merged[0] != "file":
        return False
    before = _lines(sent) if sent is not None and sent[0] == "file" else set()
    return _lines(entry) - before <= _lines(merged)


def _lines(entry: Entry) -> set[bytes]:
    content = entry[2]
    return set(content.splitlines()) if isinstance(content, bytes) else set()


class Looked(Protocol):
    """A model of a sandbox that is told of looks."""

    def looked(self, paths: Collection[str] | None = None) -> None:
        """Note that a look at these paths begins, or one at all."""


def note_look(model: Looked, packed: BinaryIO) -> None:
    """Note in the model what an execution looks at, by its archive; nothing if it only counts."""
    start = packed.tell()
    # One that a fault has damaged is refused, and looks at nothing.
    damaged = (KeyError, ValueError, EOFError, OSError, tarfile.TarError, zlib.error)
    with contextlib.suppress(*damaged), tarfile.open(fileobj=packed, mode="r:gz") as members:
        member = members.extractfile("request.json")
        request = json.loads(member.read()) if member is not None else {}
        look = request.get("look", {})
        if look.get("find_new"):
            model.looked()
        elif look.get("items"):
            paths = [item.partition("\0")[0] for item in look["items"].split("\0\0")]
            looked = [path[1:].encode("utf-8", "surrogateescape") for path in paths if not path.startswith("e")]
            model.looked(list(map(os.fsdecode, looked)))
    packed.seek(start)


class SavedEntries:
    """The saved versions, as entries of a `Tree`."""

    def __init__(self, state_folder: str, clock: Clock) -> None:
        self._state_folder = state_folder
        self._clock = clock

    def versions(self) -> list[SavedVersion]:
        """Return the versions as another process reads them, the newest first."""
        with closing(StateDb(self._state_folder)) as db:
            return SavedVersions(db, self._clock).all()

    def holds(self, path: str, entry: Entry) -> bool:
        """True if that version of the path was saved."""
        return (path, by_digest(entry)) in self.all()

    def all(self) -> list[tuple[str, Entry]]:
        """Return all saved files, with the digests of their contents in the contents' place, links and folders."""
        return [(path, _saved_entry(saved)) for version in self.versions() for path, saved in version.paths.items()]


def by_digest(entry: Entry) -> Entry:
    """Return the entry with the digest of its content in the content's place."""
    match entry:
        case ("file", is_executable, bytes(content)):
            return ("file", is_executable, hashlib.sha256(content).digest())
    return entry


def _saved_entry(saved: model_entry.Entry) -> Entry:
    match saved.kind:
        case Kind.FILE:
            return ("file", bool(saved.mode & 0o100), saved.digest)
        case Kind.SYMLINK:
            return ("link", saved.target)
    return FOLDER
