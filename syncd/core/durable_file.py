"""Files that survive a crash: written to a draft beside the target, flushed, renamed, and checked when read.

A file that is truncated, damaged, of a newer version or not a regular file is renamed, and a warning says so. Its
content is then unknown, which costs a full sync; it never causes a crash, or a wait for a FIFO without a writer.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import stat
from typing import Generic, Literal, TypeVar

import msgspec
from msgspec import Struct

from syncd.core.warning import SyncWarning

_log = logging.getLogger("syncd.state")
_DRAFT = ".new"
_MAGIC = b"syncd-state 1 "
_FULL_UPLOAD = "everything is uploaded anew once"
# Renaming fails with these where the new name is taken by something of another kind, or by a folder that is not empty.
_NAME_TAKEN = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST})


Record = TypeVar("Record")


class Versioned(Struct, frozen=True, kw_only=True):
    """A record with a version. One of another version does not decode, and is set aside like a damaged one."""

    version: Literal[1] = 1


class StateFile(Generic[Record]):
    """One record of the state folder. `cost` tells the user in a warning what the loss of the record costs."""

    def __init__(self, folder: str, name: str, shape: type[Record], cost: str = _FULL_UPLOAD) -> None:
        self.path = os.path.join(folder, name)
        self._shape = shape
        self._cost = cost

    def save(self, record: Record) -> None:
        """Replace the record; after a crash either the old one or the new one exists. Raises `OSError`."""
        _replace(self.path, sealed(msgspec.msgpack.encode(record)), durable=True)
        flush_folder(os.path.dirname(self.path))

    def load(self) -> Record | None:
        """Return the record, or None if there is no usable one."""
        return self.load_or_warn()[0]

    def load_or_warn(self) -> tuple[Record | None, SyncWarning | None]:
        """Return the record, or None if there is none, and the warning, which is logged too, if one was set aside."""
        try:
            content = read_file(self.path)
        except FileNotFoundError:
            return None, None
        except OSError as failure:
            return None, self.set_aside(f"cannot be read ({failure.strerror})")
        head, _, payload = content.partition(b"\n")
        try:
            if head == _seal(payload):
                return msgspec.msgpack.decode(payload, type=self._shape), None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass
        return None, self.set_aside("was damaged or of another version")

    def set_aside(self, why: str) -> SyncWarning:
        """Rename an unusable record, so that a person can look at it, and return the warning about it."""
        try:
            aside = move_aside(self.path)
        except OSError as failure:
            remedy = f"remove {self.path} ({failure.strerror}); until then {self._cost.removesuffix(' once')}"
        else:
            remedy = f"nothing to do; it is kept as {aside}, and {self._cost}"
        warning = SyncWarning(f"state:{self.path}", f"the state file {os.path.basename(self.path)!r} {why}", remedy)
        _log.warning("%s", warning)  # when the status shows it, the record may be in order again
        return warning

    def remove(self) -> None:
        """Delete the record. Raises `OSError` if a later process could still read it."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError:  # a read-only file system refuses even where there is no file
            if not os.path.isdir(self.path) and os.path.lexists(self.path):
                _truncate(self.path)
        else:
            flush_folder(os.path.dirname(self.path))


def sealed(payload: bytes) -> bytes:
    """Return the bytes of a state file with this payload."""
    return _seal(payload) + b"\n" + payload


def _seal(payload: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(payload).hexdigest().encode()


class CacheFile(Generic[Record]):
    """One record in JSON whose loss costs next to nothing: not flushed, and a damaged one reads as none."""

    def __init__(self, folder: str, name: str, shape: type[Record], at_most_bytes: int) -> None:
        self._path = os.path.join(folder, name)
        self._shape = shape
        self._at_most_bytes = at_most_bytes

    def save(self, record: Record) -> None:
        """Replace the record. Raises `OSError`."""
        write_whole(self._path, msgspec.json.encode(record))

    def load(self) -> Record | None:
        """Return the record, or None if there is no usable one."""
        try:
            return msgspec.json.decode(read_file(self._path, self._at_most_bytes), type=self._shape)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None


class MarkerFile:
    """A fact that is true while an entry of any kind has this name in the state folder."""

    def __init__(self, folder: str, name: str) -> None:
        self._path = os.path.join(folder, name)

    @property
    def exists(self) -> bool:
        """True if the marker is set."""
        return os.path.lexists(self._path)

    def create(self) -> None:
        """Set the marker; it survives a power cut. Raises `OSError`."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        flush_folder(os.path.dirname(self._path))

    def remove(self) -> bool:
        """Remove the marker, and return if there was one; a power cut may bring it back. Raises `OSError`."""
        try:
            _delete(self._path)
        except FileNotFoundError:
            return False
        return True


def read_file(path: str, at_most_bytes: int = -1) -> bytes:
    """Return the content of a regular file. Raises `OSError`, also for any other kind of entry."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(at_most_bytes)
    finally:
        os.close(descriptor)


def write_whole(path: str, content: bytes) -> None:
    """Replace a file so that readers see the old one or the new one; a crash of the machine may lose either."""
    _replace(path, content, durable=False)


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
    try:
        os.replace(draft, path)
    except IsADirectoryError:
        move_aside(path)
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
    """Rename the file and return its new path; it replaces one that was set aside earlier."""
    aside = f"{path}.damaged"
    try:
        os.replace(path, aside)
    except OSError as failure:
        if failure.errno not in _NAME_TAKEN:
            raise
        _delete(aside)
        os.replace(path, aside)
    return aside


def _delete(path: str) -> None:
    try:
        os.unlink(path)
    except IsADirectoryError:
        import shutil  # noqa: PLC0415 - 2 ms of the start of every command, for a rare case

        shutil.rmtree(path)


def _truncate(path: str) -> None:
    """Empty a file whose folder does not allow to delete it: an empty record is not accepted by any reader."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.ftruncate(descriptor, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
