"""The status document on disk, and whether the process that wrote it still lives.

A document is only believed to be of a running daemon while that daemon holds the workspace's lock; the kernel drops the
lock with the process, however it ends. Nothing is decided by the document, so it is not flushed to the disk: what a
power cut takes of it is only what was done last.
"""

from __future__ import annotations

import os

import msgspec
from msgspec.structs import replace

from syncd.core.durable_file import read_file, write_whole
from syncd.core.lock import holder
from syncd.sync.status_document import VERSION, State, Status

_NAME = "status.json"
_encode = msgspec.json.Encoder().encode


class StatusStore:
    """Where one daemon writes what it is doing."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._path = os.path.join(folder, _NAME)
        self._written = b""

    def write(self, status: Status) -> None:
        """Show the document to readers, if it says anything new. Raises `OSError`."""
        content = _encode(status)
        if content != self._written:
            write_whole(self._path, content)
            self._written = content

    def last(self, otherwise: Status) -> Status:
        """The document that lies there, of this process or an earlier one; `otherwise` where none makes sense."""
        return read_last(self._folder, otherwise)


def encoded(status: Status) -> bytes:
    """The document as `status --json` prints it."""
    return _encode(status)


def read_status(folder: str, otherwise: Status) -> Status:
    """What the daemon of this state folder is doing, or did last; `otherwise` where nothing is known.

    Of a process that is gone only what it did last is left: its state, its pid and its plans went with it.
    """
    status = read_last(folder, otherwise)
    owner = holder(folder)
    if owner is not None and status.running and (owner in (0, status.pid)):
        return status
    since = status.state_since if status.state is State.STOPPED else None  # of one that was killed, nobody knows
    return replace(
        status, running=False, pid=None, state=State.STOPPED, state_since=since, retry_at=None, progress=None
    )


def read_last(folder: str, otherwise: Status) -> Status:
    """The document as it was written last, by whomever; `otherwise` where none makes sense."""
    try:
        status = msgspec.json.decode(read_file(os.path.join(folder, _NAME)), type=Status)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return otherwise
    return status if status.version == VERSION else otherwise
