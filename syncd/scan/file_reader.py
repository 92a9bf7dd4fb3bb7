"""Reads the content of the workspace's files, and detects changes during the read.

A file is opened from its directory's descriptor, and its status is compared before and after the read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator

from syncd.core.clock import Clock
from syncd.model.entry import Entry, as_read
from syncd.scan.inode import file_entry
from syncd.selection import safe_open
from syncd.selection.secret_scanner import LARGEST_BYTES, NoSearch, Search, Secret

# A file up to this size is packed in one piece and, if it changed meanwhile, again; larger ones in such pieces.
PIECE_BYTES = 1 << 20


class ReadError(Exception):
    """Reading a file of the workspace failed; it is distinct from a failure to write the spool."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def read_at(descriptor: int, offset: int, size_bytes: int) -> bytes:
    """Read so many bytes from the offset; fewer only at the file's end. Raises `ReadError`."""
    try:
        content = os.pread(descriptor, size_bytes, offset)
        while 0 < len(content) < size_bytes:
            more = os.pread(descriptor, size_bytes - len(content), offset + len(content))
            if not more:
                break
            content += more
    except OSError as failure:
        raise ReadError(failure) from failure
    return content


def unchanged_since(before: os.stat_result, descriptor: int) -> bool:
    """True if size, times and mode of the open file are as before."""
    return _file_state(before) == _file_state(os.fstat(descriptor))


def wall_ns(clock: Clock) -> int:
    """Return the wall clock in nanoseconds."""
    return int(clock.wall_s() * 1e9)


def _file_state(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode


class ContentReader:
    """Reads files of one workspace for their digests and secrets."""

    def __init__(
        self, workspace: str, clock: Clock, check: Callable[[], None] = lambda: None, search: Search | None = None
    ) -> None:
        self._workspace = workspace
        self._clock = clock
        self._check = check
        self._search: Search = search or NoSearch()

    def secrets(self, paths: Iterable[str]) -> dict[str, Secret]:
        """Return the files that hold a secret; one that cannot be read is skipped. Raises `WorkspaceError`."""
        found: dict[str, Secret] = {}
        if not self._search.identity:
            return found
        with safe_open.DirCursor(safe_open.open_workspace(self._workspace)) as cursor:
            for path in paths:
                self._check()
                secret = self._secret(cursor, path)
                if secret is not None:
                    found[path] = secret
        return found

    def _secret(self, cursor: safe_open.DirCursor, path: str) -> Secret | None:
        try:
            parent, name = cursor.parent_of(path)
            descriptor, status = safe_open.open_file(name, parent)
        except OSError:
            return None
        try:
            if status.st_size > LARGEST_BYTES:
                return None
            return self._search.in_file(path, read_at(descriptor, 0, status.st_size))
        except ReadError:
            return None
        finally:
            os.close(descriptor)

    def digests(self, paths: Iterable[str]) -> Iterator[tuple[str, Entry]]:
        """Yield these paths with their entries, which have digests, as each is read.

        Files that cannot be read, that changed meanwhile, or that hold a secret are omitted; the packer finds the
        secret. Raises `WorkspaceError`.
        """
        with safe_open.DirCursor(safe_open.open_workspace(self._workspace)) as cursor:
            for path in paths:
                self._check()
                entry = self._digest(cursor, path)
                if entry is not None:
                    yield path, entry

    def _digest(self, cursor: safe_open.DirCursor, path: str) -> Entry | None:
        try:
            parent, name = cursor.parent_of(path)
            descriptor, status = safe_open.open_file(name, parent)
        except OSError:
            return None
        try:
            read_at_ns = wall_ns(self._clock)
            digest = hashlib.sha256()
            offset = 0
            # Up to the size of its status: a file that is written faster than it is read has no end.
            while piece := read_at(descriptor, offset, min(PIECE_BYTES, status.st_size - offset)):
                self._check()
                if len(piece) == status.st_size and self._search.in_file(path, piece) is not None:
                    return None
                digest.update(piece)
                offset += len(piece)
            if not unchanged_since(status, descriptor):
                return None
            return as_read(file_entry(status), digest.digest(), read_at_ns)
        except ReadError:
            return None
        finally:
            os.close(descriptor)
