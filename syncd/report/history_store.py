"""The history file: JSON lines, the newest last, never longer than `MOST_BYTES`.

A line is added in one write. A line that a crash or an editor damaged is skipped. One process writes at a time, the one
with the workspace's lock; readers need no lock.
"""

from __future__ import annotations

import errno
import os
import stat

import msgspec

from syncd.core.durable_file import write_whole
from syncd.report.history import SyncRecord

NAME = "history.jsonl"
# A full file is cut to its newer half, so that about one line in a thousand costs a rewrite.
MOST_BYTES = 1 << 20
KEPT_BYTES = MOST_BYTES // 2
# The errors of opening a link, a socket or FIFO, or a folder in the file's place.
_NO_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EINVAL})

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(SyncRecord).decode


class HistoryStore:
    """The history of one workspace."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, NAME)

    def append(self, record: SyncRecord) -> None:
        """Add a line. Raises `OSError`; the older lines stay."""
        line = encoded(record) + b"\n"
        try:
            descriptor = _opened(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        except OSError as failure:
            if failure.errno not in _NO_FILE:
                raise
            write_whole(self.path, line)  # it replaces what has the name
            return
        try:
            size = os.fstat(descriptor).st_size
            if size + len(line) >= MOST_BYTES:
                write_whole(self.path, _tail(descriptor, KEPT_BYTES) + line)
                return
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # a crash or a full disk cut the last one short
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        finally:
            os.close(descriptor)

    def read(self) -> tuple[list[SyncRecord], int]:
        """The records, the newest last, and the number of damaged lines. No file: no records.

        Raises `OSError`, also where something else than a file has the name.
        """
        try:
            descriptor = _opened(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return [], 0
        try:
            lines = _tail(descriptor, MOST_BYTES).split(b"\n")
        finally:
            os.close(descriptor)
        records: list[SyncRecord] = []
        damaged = 0
        for line in filter(None, lines):
            try:
                records.append(_decode(line))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                damaged += 1
        return records, damaged


def encoded(record: SyncRecord) -> bytes:
    """The record as a line of the file and of `history --json`, without its end."""
    return _encode(record)


def _opened(path: str, flags: int) -> int:
    """The regular file of that name. Raises `OSError`."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is not a file", path)


def _tail(descriptor: int, most_bytes: int) -> bytes:
    """The last whole lines of the file, each with its end."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - most_bytes)
    found = os.pread(descriptor, most_bytes, start)
    if start:
        found = found.partition(b"\n")[2]
    return found if not found or found.endswith(b"\n") else found + b"\n"
