"""Manifests in the database: a row a directory, encoded as in memory, so that an edit writes the directory it is in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from zlib import crc32

import msgspec

from syncd.model.directory import EMPTY, Directory, Entries, differing, rebuilt
from syncd.model.manifest import Manifest
from syncd.store.state_db import StateDb

# In place: a row that is replaced instead would move to another page, and an edit write more of them.
_WRITE = """INSERT INTO directories VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET texts = excluded.texts,
    encoded = excluded.encoded, checksum = excluded.checksum"""


class ManifestRows:
    """The manifests of one owner, each under the number of its `version`."""

    def __init__(self, db: StateDb, owner: str) -> None:
        self._db = db
        self._owner = owner

    def load(self, version: int) -> tuple[Manifest, list[str]]:
        """Return the manifest, and the directories that it lacks, as their rows were damaged. Raises `OSError`."""
        own: dict[str, Entries] = {}
        damaged: list[str] = []
        query = """SELECT path, texts, encoded, checksum FROM directories
            WHERE owner = (SELECT number FROM owners WHERE name = ?) AND version = ?"""
        for path, texts, encoded, checksum in self._db.rows(query, self._owner, version):
            try:
                if _checksum(path, texts, encoded) == checksum:
                    own[os.fsdecode(path)] = Entries.stored(texts, encoded)
                    continue
            except (TypeError, msgspec.MsgspecError):  # a bit that flipped in the row's head makes a number of bytes
                pass
            damaged.append(os.fsdecode(path) if isinstance(path, bytes) else "")
        return Manifest.of(rebuilt(EMPTY, own)), damaged

    def save(self, version: int, manifest: Manifest, before: Manifest | None) -> None:
        """Write what differs from the manifest whose rows are there; all if it is not known. Raises `OSError`."""
        with self._db.transaction():
            owner = self._db.owner(self._owner)
            if before is None:
                self._db.change("DELETE FROM directories WHERE owner = ? AND version = ?", owner, version)
            for path, directory in _changed(Manifest() if before is None else before, manifest):
                place = os.fsencode(path)
                if directory.own.count:
                    row = owner, version, place, directory.own.texts, directory.own.encoded
                    self._db.change(_WRITE, *row, _checksum(*row[2:]))
                else:
                    what = "DELETE FROM directories WHERE owner = ? AND version = ? AND path = ?"
                    self._db.change(what, owner, version, place)

    def forget(self, first: int) -> None:
        """Remove the versions from this number on. Raises `OSError`."""
        with self._db.transaction():
            what = "DELETE FROM directories WHERE owner = (SELECT number FROM owners WHERE name = ?) AND version >= ?"
            self._db.change(what, self._owner, first)


def _changed(before: Manifest, now: Manifest) -> Iterator[tuple[str, Directory]]:
    """Yield the directories whose own entries differ, an empty one for each that is gone."""
    for path, old, new in differing(before.top, now.top):
        if not old.own.equals(new.own):
            yield path, new
    for path, new, old in differing(now.top, before.top):
        if new is EMPTY and old.own.count:
            yield path, EMPTY


def _checksum(path: bytes, texts: bytes, encoded: bytes) -> int:
    return crc32(encoded, crc32(texts, crc32(path)))
