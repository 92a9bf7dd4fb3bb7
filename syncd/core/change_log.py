"""A file of changes to a record, appended one after another, so that a small change costs a small write.

It belongs to one state of the record, which its first line names; with another one it is of no use, and is begun anew.
Each change has its length and a checksum. What a killed process left of one is cut off before the next is appended.
"""

from __future__ import annotations

import contextlib
import os
import struct

from syncd.core.checksum import crc32c
from syncd.core.durable_file import flush_folder, read_file

_MAGIC = b"syncd-changes 1 "
# The length of the change, and the CRC-32C of length and change.
_FRAME = struct.Struct("<II")
_LENGTH = struct.Struct("<I")


class ChangeLog:
    """The changes in one file. `size_bytes` is their length on disk, as far as this process has read or written it."""

    def __init__(self, folder: str, name: str) -> None:
        self.path = os.path.join(folder, name)
        self.size_bytes = 0
        self._of = ""  # the state that the file's changes follow, once it is known

    def read(self, of: str) -> list[bytes]:
        """Return the changes that follow this state, in order; none if the file is of another one, or damaged."""
        self._of, self.size_bytes = of, 0
        try:
            content = read_file(self.path)
        except OSError:
            return []
        head = _head(of)
        if not content.startswith(head):
            return []
        changes = []
        at = len(head)
        while (change := _change_at(content, at)) is not None:
            changes.append(change)
            at += _FRAME.size + len(change)
        self.size_bytes = at
        return changes

    def append(self, of: str, change: bytes) -> None:
        """Append a change that follows this state and the changes so far; it is durable when this returns.

        Raises `OSError`; then it is as if nothing was appended.
        """
        if self._of != of:
            self.read(of)
        length = _LENGTH.pack(len(change))
        frame = length + _LENGTH.pack(crc32c(length + change)) + change
        is_new = self.size_bytes == 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, 0o600)
        try:
            os.ftruncate(descriptor, self.size_bytes)
            os.lseek(descriptor, self.size_bytes, os.SEEK_SET)
            data = _head(of) + frame if is_new else frame
            _write_all(descriptor, data)
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, self.size_bytes)
            raise
        finally:
            os.close(descriptor)
        if is_new:
            flush_folder(os.path.dirname(self.path))
        self.size_bytes += len(data)

    def remove(self) -> None:
        """Delete the file. Raises `OSError`."""
        self._of, self.size_bytes = "", 0
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


def _head(of: str) -> bytes:
    return _MAGIC + of.encode() + b"\n"


def _change_at(content: bytes, at: int) -> bytes | None:
    """Return the change that begins there, None if there is no whole one."""
    start = at + _FRAME.size
    if start > len(content):
        return None
    size_bytes, checksum = _FRAME.unpack_from(content, at)
    change = content[start : start + size_bytes]
    if len(change) != size_bytes or crc32c(content[at : at + _LENGTH.size] + change) != checksum:
        return None
    return change


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
