"""A bounded file of lines, the newest last.

A line is added in one write, without a flush. A full file is cut to its newer half, so that few lines cost a rewrite.
One process writes at a time, the one with the workspace's lock; readers need no lock.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from syncd.core.durable_file import write_whole

# The errors of opening a link, a socket or FIFO, or a folder in the file's place.
_NO_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EINVAL})


class LineFile:
    """The lines of one file, which is never longer than `most_bytes`."""

    def __init__(self, folder: str, name: str, most_bytes: int) -> None:
        self.path = os.path.join(folder, name)
        self._most_bytes = most_bytes

    def append(self, line: bytes) -> None:
        """Add a line, given without its end. Raises `OSError`; the older lines stay."""
        line += b"\n"
        try:
            descriptor = _opened(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        except OSError as failure:
            if failure.errno not in _NO_FILE:
                raise
            write_whole(self.path, line)  # it replaces what has the name
            return
        try:
            size = os.fstat(descriptor).st_size
            if size + len(line) >= self._most_bytes:
                write_whole(self.path, _tail(descriptor, self._most_bytes // 2) + line)
                return
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # a crash or a full disk cut the last one short
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        finally:
            os.close(descriptor)

    def replace(self, lines: Iterable[bytes]) -> None:
        """Replace all lines. Raises `OSError`; then the older lines stay."""
        write_whole(self.path, b"".join(line + b"\n" for line in lines))

    def lines(self) -> list[bytes]:
        """Return the lines, without their ends. No file: no lines.

        Raises `OSError`, also where something else than a file has the name.
        """
        try:
            descriptor = _opened(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return []
        try:
            return [line for line in _tail(descriptor, self._most_bytes).split(b"\n") if line]
        finally:
            os.close(descriptor)


def _opened(path: str, flags: int) -> int:
    """Return the regular file of that name. Raises `OSError`."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is not a file", path)


def _tail(descriptor: int, most_bytes: int) -> bytes:
    """Return the last whole lines of the file, each with its end."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - most_bytes)
    found = os.pread(descriptor, most_bytes, start)
    if start:
        found = found.partition(b"\n")[2]
    return found if not found or found.endswith(b"\n") else found + b"\n"
