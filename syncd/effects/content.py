"""Reads the content of the workspace's files, and tells whether they stood still meanwhile.

A file is opened from its directory's descriptor and looked at before and after it is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from typing import IO

from syncd.base.clock import Clock
from syncd.effects import descent
from syncd.effects.scan import file_entry
from syncd.policy.manifest import Entry, Manifest, as_read, unknown_content

# Up to this a file is read in one piece and, if it changed meanwhile, again; larger ones are read in pieces of it.
PIECE_BYTES = 1 << 20
# A file that changes under every one of so many reads is being written all the time.
_READS = 3


class ReadError(Exception):
    """Reading a workspace's file failed, as against writing the spool."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def read(file: IO[bytes], size_bytes: int) -> bytes:
    """Up to that many bytes, fewer only at the file's end. Raises `ReadError`."""
    try:
        content = file.read(size_bytes)
        while 0 < len(content) < size_bytes:
            more = file.read(size_bytes - len(content))
            if not more:
                break
            content += more
    except OSError as failure:
        raise ReadError(failure) from failure
    return content


def state(file: IO[bytes]) -> Entry:
    """What the open file is at this moment."""
    return file_entry(os.fstat(file.fileno()))


def wall_ns(clock: Clock) -> int:
    """The wall clock in nanoseconds, before a read."""
    return int(clock.wall_s() * 1e9)


def read_small(file: IO[bytes], clock: Clock) -> tuple[Entry, bytes]:
    """A small file's content, and its entry; without a digest if it would not stand still. Raises `ReadError`."""
    for _ in range(_READS):
        read_at_ns = wall_ns(clock)
        before = state(file)
        file.seek(0)
        content = read(file, before.size_bytes)  # one that grew shows by its state, without a read for its new end
        if state(file) == before and len(content) == before.size_bytes:
            return as_read(before, hashlib.sha256(content).digest(), read_at_ns), content
    return unknown_content(before), content


class ContentReader:
    """Reads files of one workspace for their digests."""

    def __init__(self, workspace: str, clock: Clock, check: Callable[[], None] = lambda: None) -> None:
        self._workspace = workspace
        self._clock = clock
        self._check = check

    def digests(self, paths: Iterable[str]) -> Manifest:
        """The entries of these paths with their content's digest; one that cannot be read, or changes, is left out.

        Raises `WorkspaceError`.
        """
        found = {}
        with descent.Descent(descent.open_workspace(self._workspace)) as down:
            for path in paths:
                self._check()
                entry = self._digest(down, path)
                if entry is not None:
                    found[path] = entry
        return found

    def _digest(self, down: descent.Descent, path: str) -> Entry | None:
        try:
            parent, name = down.parent_of(path)
            descriptor = descent.open_file(name, parent)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            read_at_ns = wall_ns(self._clock)
            before = state(file)
            digest = hashlib.sha256()
            try:
                while piece := read(file, PIECE_BYTES):
                    self._check()
                    digest.update(piece)
            except ReadError:
                return None
            return as_read(before, digest.digest(), read_at_ns) if state(file) == before else None
