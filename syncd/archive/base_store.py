"""Keeps the bytes of what was sent, for a three-way merge once the workspace holds something else.

A file that is here as it was sent needs no copy. Where it differs, its bytes are in one of two places: in the chunks of
the last whole archive, which an index by path finds, or in a file of their own, named by their digest. Those come from
partial archives, and from chunks that are about to be replaced. Nothing is flushed to the disk; whatever is read is
checked by its digest, so what is lost or damaged is missing, never wrong.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import os
import shutil
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import msgspec
from isal import isal_zlib
from msgspec import Struct

from syncd.archive.archive_format import LEVEL
from syncd.archive.chunk_store import Archive, ChunkStore, DamagedPiece, Piece
from syncd.archive.extraction import BadArchive, MemberKind, members
from syncd.core.durable_file import read_file, write_whole
from syncd.core.errors import TryLater
from syncd.core.safe_open import blocks_of
from syncd.core.text import shown_path
from syncd.model.entry import Entry, Kind, SeenEntry, Stamp, arrived_digest, with_copy
from syncd.model.manifest import Manifest
from syncd.scan.file_reader import stamp_of
from syncd.store.blobs import Blobs

# Text is merged by lines; no one merges a larger file.
LARGEST_MERGED_BYTES = 4 << 20
# The copies take no more than the snapshot itself, but a small snapshot may have so much.
_LEAST_ROOM_BYTES = 16 << 20
# Those that no sandbox was sent last go once all have grown by half since, and beyond so much.
_LEAST_GROWN_BYTES = 1 << 20
_MOST_ROOM_BYTES = 256 << 20
_MOST_INFLATED_BYTES = 16 << 20
_BLOCK = 1 << 18
# The digests of all files that count as sent now, to whichever sandbox.
SentDigests = Callable[[], Collection[bytes]]


class BaseStore:
    """The bytes of files that were sent, in the spool of one workspace. Processes without its lock only read."""

    def __init__(self, spool_folder: str, chunks: ChunkStore) -> None:
        self._folder = os.path.join(spool_folder, "base")
        self._index = os.path.join(spool_folder, "chunk-index")
        self._chunks = chunks
        self._kept_bytes = self._most_bytes = 0  # as far as is known, and before all copies are looked through again

    def get(self, path: str, digest: bytes) -> bytes | None:
        """The bytes with this digest that were sent as `path`; None if they are gone."""
        if not digest:
            return None
        content = self._own(digest)
        if content is None:
            content = next(self._of_chunk(_key_of(self._rows(), path), {path: digest}), None)
        return content

    def record_chunks(self, pieces: Mapping[str, Piece]) -> None:
        """Record which chunk of the store begins at which path, after a whole archive was packed."""
        rows = [(os.fsencode(path), piece.key) for path, piece in pieces.items()]
        with contextlib.suppress(OSError):
            write_whole(self._index, msgspec.msgpack.encode(rows))

    def pieces(self) -> list[Piece]:
        """Return the chunks of the last whole archive, as far as they are there."""
        return [piece for _, key in self._rows() if key and (piece := self._chunks.get(key)) is not None]

    def keep_replaced(self, base: Manifest, paths: Iterable[str], sent: SentDigests) -> None:
        """Copy the bytes of these paths of the base out of the chunks, before others take their place."""
        self.add(self._replaced(base, paths), base.content_bytes, sent)

    def keep_sent(self, archive: Archive, snapshot_bytes: int, sent: SentDigests) -> None:
        """Copy the files of a partial archive: its chunks go with the next one."""
        with contextlib.suppress(DamagedPiece, BadArchive):
            self.add((content for _, content in _small_files(archive)), snapshot_bytes, sent)

    def make_room(self) -> bool:
        """Forget everything: a sync needs the room. False if there was nothing."""
        had_any = os.path.exists(self._folder) or os.path.exists(self._index)
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(self._index)
        return had_any

    def _replaced(self, base: Manifest, paths: Iterable[str]) -> Iterator[bytes]:
        """Yield the contents of these paths; each chunk is read once, as it holds many of them."""
        rows = self._rows()
        wanted: dict[str, dict[str, bytes]] = {}
        for path in paths:
            entry = base.get(path)
            if entry is None or entry.kind is not Kind.FILE or entry.size_bytes > LARGEST_MERGED_BYTES:
                continue
            digest = arrived_digest(entry)
            if digest and not _touch(self._path(digest)):
                wanted.setdefault(_key_of(rows, path), {})[path] = digest
        for key, digests in wanted.items():
            yield from self._of_chunk(key, digests)

    def add(self, contents: Iterable[bytes], snapshot_bytes: int, sent: SentDigests | None = None) -> None:
        """Keep these contents, which become what was sent, as far as there is room; others go that are not `sent`."""
        room_bytes = max(_LEAST_ROOM_BYTES, min(_MOST_ROOM_BYTES, snapshot_bytes))
        kept_bytes, places = 0, set[str]()
        with contextlib.suppress(OSError):
            for content in contents:
                place = self._path(hashlib.sha256(content).digest())
                places.add(place)
                if _touch(place):
                    continue
                packed = isal_zlib.compress(content, LEVEL)
                if kept_bytes + len(packed) > room_bytes:
                    break
                if not kept_bytes:
                    os.makedirs(self._folder, mode=0o700, exist_ok=True)
                kept_bytes += len(packed)
                write_whole(place, packed)
            self._kept_bytes += kept_bytes
            if kept_bytes and self._kept_bytes > min(room_bytes, self._most_bytes):
                self._make_room(room_bytes, places, sent)

    def _make_room(self, room_bytes: int, new: set[str], sent: SentDigests | None) -> None:
        """Delete the copies that nobody needs any more, then those that were made longest ago. Raises `OSError`.

        To know which are needed costs a look at all that was sent, so it is not asked each time.
        """
        with os.scandir(self._folder) as items:
            found = sorted(
                ((status.st_mtime_ns, status.st_size, item.path) for item in items for status in (item.stat(),)),
                reverse=True,
            )
        if sent is not None and sum(row[1] for row in found) > _LEAST_GROWN_BYTES:
            needed = new | {self._path(digest) for digest in sent()}
            for _, _, path in [row for row in found if row[2] not in needed]:
                os.unlink(path)
            found = [row for row in found if row[2] in needed]
        self._kept_bytes = min(room_bytes, sum(row[1] for row in found))
        self._most_bytes = max(_LEAST_GROWN_BYTES, self._kept_bytes + self._kept_bytes // 2)
        for _, size_bytes, path in found:
            room_bytes -= size_bytes
            if room_bytes < 0:
                os.unlink(path)

    def _path(self, digest: bytes) -> str:
        return os.path.join(self._folder, digest.hex())

    def _own(self, digest: bytes) -> bytes | None:
        try:
            packed = read_file(self._path(digest))
            content: bytes = zlib.decompressobj().decompress(packed, LARGEST_MERGED_BYTES + 1)
        except (OSError, zlib.error):
            return None
        return content if hashlib.sha256(content).digest() == digest else None

    def _of_chunk(self, key: str, digests: Mapping[str, bytes]) -> Iterator[bytes]:
        """Yield the contents of these paths that the chunk holds with these digests."""
        piece = self._chunks.get(key) if key else None
        if piece is None or piece.content.size_bytes > _MOST_INFLATED_BYTES:
            return
        left = dict(digests)
        with contextlib.suppress(DamagedPiece, BadArchive):
            for path, content in _small_files(Archive.of([piece])):
                if path in left and hashlib.sha256(content).digest() == left.pop(path):
                    yield content
                if not left:
                    return

    def _rows(self) -> list[tuple[bytes, str]]:
        try:
            return msgspec.msgpack.decode(read_file(self._index), type=list[tuple[bytes, str]])
        except (OSError, msgspec.MsgspecError):
            return []


def _touch(place: str) -> bool:
    """Have a copy count as new; False if there is none."""
    try:
        os.utime(place)
    except OSError:
        return False
    return True


def _key_of(rows: list[tuple[bytes, str]], path: str) -> str:
    """The key of the chunk in which the path would be, empty if there is none."""
    at = bisect.bisect_right(rows, _in_order(os.fsencode(path)), key=lambda row: _in_order(row[0])) - 1
    return rows[at][1] if at >= 0 else ""


def _in_order(path: bytes) -> list[bytes]:
    """The archive's order: by name within a directory, a directory before what is in it."""
    return path.split(b"/")


def _small_files(archive: Archive) -> Iterator[tuple[str, bytes]]:
    """Yield the files that are small enough for a merge. Raises `DamagedPiece`, `BadArchive`."""
    for member, content in members(archive.blocks(_BLOCK)):
        if member.kind is MemberKind.FILE and member.size_bytes <= LARGEST_MERGED_BYTES:
            yield member.name, b"".join(content)


# -- what was sent, wherever it is


class SentFiles(Struct, frozen=True):
    """The versions that were sent from one workspace. Those that are not in it are copied to the folder `scratch`."""

    workspace: str
    scratch: str
    base_store: BaseStore
    blobs: Blobs

    def version(self, path: str, entry: Entry) -> SeenEntry | None:
        """Return a file or link that was sent, with its content; None if its bytes are gone."""
        if entry.kind is Kind.SYMLINK:
            return with_copy(entry, "")
        place, digest = os.path.join(self.workspace, path), arrived_digest(entry)
        if _is_as_read(place, entry.stamp) or digest_at(place) == digest != b"":
            return with_copy(entry, place)
        if self.blobs.is_whole(digest):
            return with_copy(entry, self.blobs.path(digest))
        content = self.base_store.get(path, digest)
        if content is None:
            return None
        copy = os.path.join(self.scratch, f"sent-{digest.hex()}")
        with open(copy, "wb") as file:
            file.write(content)
        return with_copy(entry, copy)

    def needed_version(self, path: str, entry: Entry) -> SeenEntry:
        """Return what `version` does. Raises `TryLater` if its bytes are gone."""
        version = self.version(path, entry)
        if version is None:
            what = f"what was sent as '{shown_path(path)}' is not known any more, as it was changed here since"
            raise TryLater(what, "run `syncd push`, or `syncd resolve` if it is in conflict, then try again")
        return version


def _is_as_read(place: str, stamp: Stamp | None) -> bool:
    """True if the file is as it was when its content was read."""
    try:
        return stamp is not None and stamp_of(os.lstat(place)) == stamp
    except OSError:
        return False


def digest_at(place: str) -> bytes:
    """Return the SHA-256 of a file; empty if it cannot be read, or is none: a FIFO or a device may never end."""
    hashed = hashlib.sha256()
    try:
        for block in blocks_of(place):
            hashed.update(block)
    except OSError:
        return b""
    return hashed.digest()
