"""What must be known after a crash: which manifest the sandbox holds, and how far a later one has come.

`initialized` is written once a sandbox has answered that it holds a manifest. `uploaded` is written between upload and
initialize: should the process die there, the next one need not upload the same bytes again. Both name their sandbox, so
a changed configuration starts from nothing.
"""

from __future__ import annotations

import os

import msgspec
from msgspec import Struct

from syncd.base.problem import Problem
from syncd.effects.state_file import StateFile
from syncd.policy.manifest import Entry, Kind, Manifest, Stamp
from syncd.policy.target import Target

_VERSION = 1


class _Row(Struct, array_like=True):
    """An entry in the journal's form: names as the bytes they are, since MessagePack's texts are UTF-8 only."""

    path: bytes
    kind: Kind
    mode: int
    mtime_s: int
    size_bytes: int
    target: bytes
    stamp: Stamp | None
    digest: bytes


class _Initialized(Struct):
    version: int
    target: Target
    rows: list[_Row]


class Uploaded(Struct, frozen=True):
    """An archive that lies in the bucket and was not initialized yet. `identity` is the archive's own."""

    version: int
    target: Target
    identity: str
    size_bytes: int
    sha256: str


class Journal:
    """The two records of one workspace."""

    def __init__(self, folder: str) -> None:
        self._initialized = StateFile(folder, "initialized")
        self._uploaded = StateFile(folder, "uploaded")

    def initialized(self, target: Target) -> tuple[Manifest | None, list[Problem]]:
        """The manifest that this sandbox holds, if one is known."""
        payload, problem = self._initialized.read()
        problems = [problem] if problem else []
        if payload is None:
            return None, problems
        try:
            record = msgspec.msgpack.decode(payload, type=_Initialized)
        except msgspec.MsgspecError:
            return None, [self._initialized.set_aside()]
        if record.version != _VERSION:
            return None, [self._initialized.set_aside()]
        if not record.target.same_sandbox(target):
            return None, problems
        return {os.fsdecode(row.path): _entry(row) for row in record.rows}, problems

    def uploaded(self, target: Target) -> Uploaded | None:
        """The archive that only lacks its initialize, if it went the same way to the same sandbox."""
        payload, _ = self._uploaded.read()
        if payload is None:
            return None
        try:
            record = msgspec.msgpack.decode(payload, type=Uploaded)
        except msgspec.MsgspecError:
            self._uploaded.set_aside()
            return None
        return record if record.version == _VERSION and record.target == target else None

    def record_uploaded(self, target: Target, identity: str, size_bytes: int, sha256: str) -> None:
        """Note that the archive is in the bucket. Raises `OSError`."""
        record = Uploaded(_VERSION, target, identity, size_bytes, sha256)
        self._uploaded.write(msgspec.msgpack.encode(record))

    def record_initialized(self, target: Target, manifest: Manifest) -> None:
        """Note that the sandbox holds the manifest. Raises `OSError`."""
        rows = [
            _Row(os.fsencode(p), e.kind, e.mode, e.mtime_s, e.size_bytes, os.fsencode(e.target), e.stamp, e.digest)
            for p, e in manifest.items()
        ]
        self._initialized.write(msgspec.msgpack.encode(_Initialized(_VERSION, target, rows)))
        self._uploaded.remove()

    def forget_upload(self) -> None:
        """The archive in the bucket, if any, is not the one it was."""
        self._uploaded.remove()

    def forget(self) -> None:
        """What the sandbox holds is no longer known."""
        self._initialized.remove()
        self._uploaded.remove()


def _entry(row: _Row) -> Entry:
    return Entry(row.kind, row.mode, row.mtime_s, row.size_bytes, os.fsdecode(row.target), row.stamp, row.digest)
