"""Packing a manifest: chunks that stand are taken as they are, the others are read and compressed anew.

A small file that changed while it was read is read again; a large one is already on its way into its chunk, so it is
named for a follow-up. Either way the archive stays whole: a header promises a length, and that many bytes follow it.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from syncd.base.clock import Clock
from syncd.base.problem import Problem
from syncd.effects import descent, tar_format
from syncd.effects.archive import Archive
from syncd.effects.chunk_store import ChunkStore, Piece
from syncd.effects.compress import Compressor, Making
from syncd.effects.content import PIECE_BYTES, ReadError, read_at, read_small, stood_still, wall_ns
from syncd.effects.deflate import FORM
from syncd.effects.scan import file_entry, unreadable
from syncd.policy.chunking import chunk_key, chunks
from syncd.policy.manifest import Entry, Kind, Manifest, as_read, unknown_content

# What opening says of a path that is no longer what the scan saw.
_SWAPPED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO})


@dataclass
class Packed:
    """An archive and the manifest of what is really in it. `follow_up` names files that changed while being read."""

    archive: Archive = field(default_factory=Archive)
    manifest: Manifest = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: dict[str, Entry] = field(default_factory=dict)
    follow_up: list[str] = field(default_factory=list)


class Packer:
    """Packs one workspace's manifests into chunks of one store."""

    def __init__(
        self, workspace: str, store: ChunkStore, clock: Clock, check: Callable[[], None] = lambda: None
    ) -> None:
        self._workspace = workspace
        self._store = store
        self._clock = clock
        self._check = check
        self._keys: dict[str, tuple[list[tuple[str, Entry]], str | None]] = {}

    def pack(self, manifest: Manifest) -> Packed:
        """The archive of the manifest. Raises `OSError` (a full disk), `WorkspaceError`.

        A path that vanished or was swapped since the scan is left for a follow-up; one that cannot be read becomes a
        problem.
        """
        packed = Packed()
        parts: list[Piece | Making] = []
        with descent.Descent(descent.open_workspace(self._workspace)) as down, Compressor() as compressor:
            for paths in chunks(manifest):
                self._check()
                entries = [(path, manifest[path]) for path in paths]
                key = self._key(entries)
                piece = self._store.get(key) if key else None
                if piece is None:
                    parts.append(self._make(packed, compressor, down, entries))
                else:
                    packed.manifest.update(entries)
                    parts.append(piece)
        pieces = [part.piece if isinstance(part, Making) else part for part in parts]
        packed.archive = Archive.of([piece for piece in pieces if piece is not None])
        self._store.keep_only(packed.archive.pieces)
        return packed

    def _key(self, entries: list[tuple[str, Entry]]) -> str | None:
        """The chunk's key, remembered from the last archive while the same entries are in it."""
        first = entries[0][0]
        known = self._keys.get(first)
        if known is None or known[0] != entries:
            known = self._keys[first] = (entries, chunk_key(entries, FORM))
        return known[1]

    def forget(self, damaged: Piece) -> None:
        """The piece is not what it was."""
        self._store.drop(damaged)

    def _make(
        self, packed: Packed, compressor: Compressor, down: descent.Descent, entries: list[tuple[str, Entry]]
    ) -> Making:
        making = Making(self._store.writer())
        try:
            self._fill(making, packed, compressor, down, entries)
        except BaseException:
            making.writer.discard()
            raise
        there = [(path, packed.manifest[path]) for path, _ in entries if path in packed.manifest]
        compressor.end(making, chunk_key(there, FORM))
        return making

    def _fill(
        self,
        making: Making,
        packed: Packed,
        compressor: Compressor,
        down: descent.Descent,
        entries: list[tuple[str, Entry]],
    ) -> None:
        gathered: list[bytes] = []
        gathered_bytes = 0
        for path, entry in entries:
            for data in self._tar(packed, down, path, entry):
                gathered.append(data)
                gathered_bytes += len(data)
                if gathered_bytes >= PIECE_BYTES:
                    compressor.block(making, b"".join(gathered))
                    gathered, gathered_bytes = [], 0
        if gathered:
            compressor.block(making, b"".join(gathered))

    def _tar(self, packed: Packed, down: descent.Descent, path: str, entry: Entry) -> Iterator[bytes]:
        """The entry as it goes into the archive, bit by bit."""
        if entry.kind is not Kind.FILE:
            packed.manifest[path] = entry
            yield tar_format.headers(path, entry, 0)
            return
        self._check()
        try:
            parent, name = down.parent_of(path)
            descriptor, status = descent.open_file(name, parent)
        except OSError as failure:
            if failure.errno in _SWAPPED:
                packed.follow_up.append(path)
            else:
                self._left_out(packed, path, entry, failure)
            return
        try:
            read = self._small if status.st_size <= PIECE_BYTES else self._large
            yield from read(packed, path, descriptor, status)
        except ReadError as failure:
            self._left_out(packed, path, entry, failure.cause)
        finally:
            os.close(descriptor)

    def _left_out(self, packed: Packed, path: str, entry: Entry, failure: OSError) -> None:
        packed.problems.append(unreadable(path, failure))
        packed.unread[path] = entry

    def _small(self, packed: Packed, path: str, descriptor: int, status: os.stat_result) -> Iterator[bytes]:
        entry, content = read_small(descriptor, status, self._clock)
        if not entry.digest:
            packed.follow_up.append(path)  # written all the time: what was read last goes along
        packed.manifest[path] = entry
        yield tar_format.headers(path, entry, len(content))
        yield content
        yield tar_format.padding(len(content))

    def _large(self, packed: Packed, path: str, descriptor: int, status: os.stat_result) -> Iterator[bytes]:
        read_at_ns = wall_ns(self._clock)
        before = file_entry(status)
        piece = read_at(descriptor, 0, PIECE_BYTES)  # an unreadable file shows before its header is written
        yield tar_format.headers(path, before, before.size_bytes)
        digest = hashlib.sha256()
        done = 0
        whole = True
        while done < before.size_bytes:
            self._check()
            if not piece:
                # Cut shorter meanwhile, or the disk gave out: the header's promise is kept with zeros.
                piece, whole = bytes(min(PIECE_BYTES, before.size_bytes - done)), False
            digest.update(piece)
            yield piece
            done += len(piece)
            piece = b""
            if whole:
                try:
                    piece = read_at(descriptor, done, min(PIECE_BYTES, before.size_bytes - done))
                except ReadError as failure:
                    # Left out from now on, or the next look would read it, and fail, for ever.
                    self._left_out(packed, path, before, failure.cause)
        yield tar_format.padding(before.size_bytes)
        if whole and stood_still(status, descriptor):
            packed.manifest[path] = as_read(before, digest.digest(), read_at_ns)
        else:
            packed.manifest[path] = unknown_content(before)
            packed.follow_up.append(path)
