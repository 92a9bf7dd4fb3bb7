"""What syncd does about the agent's versions: the paths that an execution looks at, and what was saved at home."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Collection
from typing import BinaryIO, Protocol

from syncd.core.clock import Clock
from syncd.model import entry as model_entry
from syncd.model.entry import Kind
from syncd.sandbox.saved_versions import SavedVersion, SavedVersions
from syncd.store.state_db import StateDb
from tests.fuzz.model import FOLDER, Entry


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
        with contextlib.closing(StateDb(self._state_folder)) as db:
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
