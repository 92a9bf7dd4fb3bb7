"""Files that must survive a crash: written whole beside their place, flushed, moved into it, checked when read.

A file that is cut short, garbage, of a newer version or no file at all is set aside under another name and told about;
what it held is then unknown, which costs a full sync and never a crash, nor a wait for a FIFO that nobody writes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import stat
from typing import TypeVar

import msgspec

from syncd.core.warning import SyncWarning

_DRAFT = ".new"
_MAGIC = b"syncd-state 1 "
_ALL_ANEW = "everything is uploaded anew once"
# What renaming says where something of another kind, or a full folder, has the new name.
_TAKEN = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST})


Shape = TypeVar("Shape")


class StateFile:
    """One named record in the state folder. `cost` is what a person is told that its loss costs."""

    def __init__(self, folder: str, name: str, cost: str = _ALL_ANEW) -> None:
        self.path = os.path.join(folder, name)
        self._cost = cost

    def write(self, payload: bytes) -> None:
        """Replace the record; after a crash there is either the old one or the new one. Raises `OSError`."""
        header = _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n"
        write_durably(self.path, header + payload)

    def read(self) -> tuple[bytes | None, SyncWarning | None]:
        """The record, or None where there is none; and what was wrong with the one that was set aside."""
        try:
            content = read_file(self.path)
        except FileNotFoundError:
            return None, None
        except OSError as failure:
            return None, self.set_aside(f"cannot be read ({failure.strerror})")
        header, _, payload = content.partition(b"\n")
        if header == _MAGIC + hashlib.sha256(payload).hexdigest().encode():
            return payload, None
        return None, self.set_aside()

    def write_record(self, record: object) -> None:
        """As `write`, in MessagePack."""
        self.write(msgspec.msgpack.encode(record))

    def read_record(self, shape: type[Shape]) -> tuple[Shape | None, SyncWarning | None]:
        """As `read`; a record of another shape is set aside, too."""
        payload, warning = self.read()
        if payload is None:
            return None, warning
        try:
            return msgspec.msgpack.decode(payload, type=shape), None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None, self.set_aside()

    def recalled(self, shape: type[Shape], log: logging.Logger) -> Shape | None:
        """The record, if there is one that makes sense; what was set aside is told in the log."""
        record, warning = self.read_record(shape)
        if warning is not None:
            log.warning("%s", warning)
        return record

    def set_aside(self, why: str = "was damaged or of another version") -> SyncWarning:
        """Move a record that makes no sense out of the way, for a person to look at."""
        what = f"the state file {os.path.basename(self.path)!r} {why}"
        try:
            aside = _moved_aside(self.path)
        except OSError as failure:
            hint = f"remove {self.path} ({failure.strerror}); until then {self._cost.removesuffix(' once')}"
            return SyncWarning(f"state:{self.path}", what, hint)
        return SyncWarning(f"state:{self.path}", what, f"nothing to do; it is kept as {aside}, and {self._cost}")

    def remove(self) -> None:
        """Forget the record for good. Raises `OSError` where a later process would still believe it."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            return
        except OSError:
            if os.path.isdir(self.path) or not os.path.lexists(self.path):
                return  # a read-only file system refuses before it looks
            _emptied(self.path)
            return
        flush_folder(os.path.dirname(self.path))


class MarkerFile:
    """A fact that is true while something, whatever it is, has this name in the state folder."""

    def __init__(self, folder: str, name: str) -> None:
        self._path = os.path.join(folder, name)

    @property
    def exists(self) -> bool:
        """Whether it is there."""
        return os.path.lexists(self._path)

    def make(self) -> None:
        """Make it, so that it outlives a power cut. Raises `OSError`."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        flush_folder(os.path.dirname(self._path))

    def take_away(self) -> None:
        """Take it away; a power cut may bring it back. Raises `OSError`."""
        with contextlib.suppress(FileNotFoundError):
            _clear(self._path)


def read_file(path: str, at_most_bytes: int = -1) -> bytes:
    """What the regular file of that name holds. Raises `OSError`, also where something else has its name."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no file", path)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(at_most_bytes)
    finally:
        os.close(descriptor)


def write_durably(path: str, content: bytes) -> None:
    """Replace a file so that a crash leaves the old one or the new one, whole. Raises `OSError`."""
    _replace(path, content, durable=True)
    flush_folder(os.path.dirname(path))


def write_whole(path: str, content: bytes) -> None:
    """Replace a file so that readers see the old one or the new one; a crash of the machine may lose either."""
    _replace(path, content, durable=False)


def flush_folder(folder: str) -> None:
    """See that the names in it outlive a power cut. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_drafts(folder: str) -> None:
    """Remove what processes that died in the middle of writing left. Only who has the workspace's lock may."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.endswith(_DRAFT):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, name))


def _replace(path: str, content: bytes, *, durable: bool) -> None:
    beside = path + _DRAFT
    with os.fdopen(_created(beside), "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    try:
        os.replace(beside, path)
    except IsADirectoryError:
        _moved_aside(path)
        os.replace(beside, path)


def _created(path: str) -> int:
    """A new file, whatever a killed process or someone else left under its name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, 0o600)


def _moved_aside(path: str) -> str:
    """The name under which it lies now; what was set aside before it is gone."""
    aside = f"{path}.damaged"
    try:
        os.replace(path, aside)
    except OSError as failure:
        if failure.errno not in _TAKEN:
            raise
        _clear(aside)
        os.replace(path, aside)
    return aside


def _clear(path: str) -> None:
    try:
        os.unlink(path)
    except IsADirectoryError:
        import shutil  # noqa: PLC0415 - 2 ms of the start of every command, for what hardly ever happens

        shutil.rmtree(path)


def _emptied(path: str) -> None:
    """Where the folder does not let go of a name, its file may still be emptied: an empty one is believed by nobody."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.ftruncate(descriptor, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
