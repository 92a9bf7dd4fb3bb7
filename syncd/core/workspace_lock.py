"""Allows one instance for each workspace, by a lock that the kernel releases when its process ends."""

from __future__ import annotations

import fcntl
import os
import struct

from syncd.core.errors import Locked

_NAME = "lock"
# struct flock of 64-bit Linux: type, whence, start, length, pid (fcntl_locking(2)).
_FLOCK = "hhqqi"


class Lock:
    """A lock that is held from `acquire` until `release` or the end of the process."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, _NAME)
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises `Locked` if another process holds it.

        The kernel releases a record lock when its process closes *any* descriptor of the file, so the process that
        holds the lock must not call `holder`.

        It is a record lock, not `flock`: `holder` can find its process without taking the lock for an instant.
        """
        descriptor = self._open_locked()
        while not _has_name(descriptor, self._path):
            # The file was removed since it was opened: the next process would lock another file of this name.
            os.close(descriptor)
            descriptor = self._open_locked()
        self._descriptor = descriptor

    def _open_locked(self) -> int:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = _owner(descriptor)
            os.close(descriptor)
            by = f" (process {pid})" if pid else ""
            raise Locked(
                f"another syncd has this workspace{by}", "use `syncd status` to look at it, or stop it first"
            ) from None
        return descriptor

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def holder(folder: str) -> int | None:
    """Return the process that holds the lock of a state folder; 0: in another PID namespace; None: no process."""
    try:
        descriptor = os.open(os.path.join(folder, _NAME), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _owner(descriptor)
    finally:
        os.close(descriptor)


def _has_name(descriptor: int, path: str) -> bool:
    """True if the open file still has that name. While it is open, no other file gets its inode number."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(descriptor: int) -> int | None:
    request = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, request))
    return None if kind == fcntl.F_UNLCK else pid
