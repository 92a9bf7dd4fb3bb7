"""Files that survive a crash: written to a draft beside the target, flushed, renamed, and checked when read.

A file that is truncated, damaged, of a newer version or not a regular file is renamed, and the log says so. It
never causes a crash, or a wait for a FIFO without a writer.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Generic, Literal, TypeVar

import msgspec
from msgspec import Struct

from syncd.core import safe_open

_log = logging.getLogger("syncd.state")
_DRAFT = ".new"
_MAGIC = b"syncd-state 1 "
_FLUSHED_TOGETHER = 8


Record = TypeVar("Record")


class Versioned(Struct, frozen=True, kw_only=True):
    """A record with a version. One of another version does not decode, and is set aside like a damaged one."""

    version: Literal[1] = 1


class StateFile(Generic[Record]):
    """One record of the state folder. `cost` tells in the log what the loss of the record costs."""

    def __init__(self, folder: str, name: str, shape: type[Record], cost: str) -> None:
        self.path = os.path.join(folder, name)
        self._shape = shape
        self._cost = cost

    def save(self, record: Record) -> None:
        """Replace the record; after a crash either the old one or the new one exists. Raises `OSError`."""
        payload = msgspec.msgpack.encode(record)
        _replace(self.path, _seal(payload) + b"\n" + payload, durable=True)
        flush_folder(os.path.dirname(self.path))

    def load(self) -> Record | None:
        """Return the record, or None if there is no usable one: one that is not is set aside, and the log says so."""
        why = "was damaged or of another version"
        try:
            head, _, payload = read_file(self.path).partition(b"\n")
            if head == _seal(payload):
                return msgspec.msgpack.decode(payload, type=self._shape)
        except FileNotFoundError:
            return None
        except OSError as failure:
            why = f"cannot be read ({failure.strerror})"
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass
        self._set_aside(why)
        return None

    def remove(self) -> None:
        """Remove the record, if there is one: it needs no space. Raises `OSError`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        flush_folder(os.path.dirname(self.path))

    def _set_aside(self, why: str) -> None:
        """Rename an unusable record, so that a person can look at it."""
        try:
            remedy = f"nothing to do; it is kept as {move_aside(self.path)}, and {self._cost}"
        except OSError as failure:
            remedy = f"remove {self.path} ({failure.strerror}); until then {self._cost}"
        _log.warning("the state file %r %s: %s", os.path.basename(self.path), why, remedy)


def _seal(payload: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(payload).hexdigest().encode()


class PauseMarker:
    """A pause, which is in force while an entry of any kind has this name in the state folder.

    It outlives restarts and needs no daemon. It outlives a power cut too: it may be there to keep something from being
    sent.
    """

    def __init__(self, state_folder: str) -> None:
        self._path = os.path.join(state_folder, "paused")

    @property
    def exists(self) -> bool:
        return os.path.lexists(self._path)

    def create(self) -> None:
        """Set the marker. Raises `OSError`."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        flush_folder(os.path.dirname(self._path))

    def remove(self) -> None:
        """Remove the marker, if there is one; a power cut may bring it back. Raises `OSError`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


def read_file(path: str) -> bytes:
    """Return the content of a regular file. Raises `OSError`, also for any other kind of entry."""
    return b"".join(safe_open.blocks_of(path))


def file_stamp(path: str) -> tuple[int, ...] | None:
    """A value that changes when the file is written or replaced; None: it is missing."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    # The time of change too: the next file may have the same number, and `cp -p` gives it any time of writing.
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def write_whole(path: str, content: bytes) -> None:
    """Replace a file so that readers see the old one or the new one; a crash of the machine may lose either."""
    _replace(path, content, durable=False)


def rewrite(path: str, content: bytes) -> None:
    """Replace a file of the person's durably: the new one has the mode and the owner of the old, if there is one.

    Raises `OSError`; then no draft is left.
    """
    folder, name = os.path.split(path)
    draft = os.path.join(folder, f".{name}.syncd-new")
    try:
        with os.fdopen(_create(draft), "wb") as file:
            with contextlib.suppress(FileNotFoundError):
                before, now = os.stat(path), os.fstat(file.fileno())
                if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise
    flush_folder(folder)


@contextlib.contextmanager
def new_file(path: str) -> Iterator[BinaryIO]:
    """Open a new, private file, which is gone if an exception ends the context. Raises `OSError`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            yield file
    except BaseException:
        with contextlib.suppress(OSError):  # the first failure is the one to report
            os.unlink(path)
        raise


def flush_folder(folder: str) -> None:
    """Flush the folder, so that its entries survive a power cut. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_drafts(folder: str) -> None:
    """Remove the drafts of processes that died while writing. The caller must hold the workspace's lock."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.endswith(_DRAFT):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, name))


def _replace(path: str, content: bytes, *, durable: bool) -> None:
    draft = path + _DRAFT
    with os.fdopen(_create(draft), "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(draft, path)


def _create(path: str) -> int:
    """Create a new file in place of one that a killed process may have left, and return its descriptor."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, 0o600)


def move_aside(path: str) -> str:
    """Rename the file and return its new path; it replaces one that was set aside earlier. Raises `OSError`."""
    aside = f"{path}.damaged"
    os.replace(path, aside)
    return aside


def flush_together(descriptors: list[int]) -> None:
    """Flush these files, close them, and empty the list. Raises `OSError`; then some are left in it.

    The file system commits for all that wait at once: a fifth of the time of one after another.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only who writes many files needs it

    with ThreadPoolExecutor(_FLUSHED_TOGETHER) as pool:
        list(pool.map(os.fsync, descriptors))
    while descriptors:
        os.close(descriptors.pop())
