"""Opens paths of the workspace through directory descriptors, so that a path that is swapped cannot lead outside.

Each step opens one name from its directory's descriptor and follows no link. A directory that is replaced by a link to
`/etc` between two steps is an error.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from syncd.core.errors import TryLater, WorkspaceError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO in a file's place must not block.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
LINKED_FILE = FILE & ~os.O_NOFOLLOW
_BLOCK_BYTES = 1 << 20
# The machine or this process has used up a resource: the path itself is not the cause.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def raise_if_exhausted(failure: OSError) -> None:
    """Raise `TryLater` for a failure that the path did not cause.

    Without this, a snapshot would lack whatever could not be opened after descriptors ran out, and its rules too.
    """
    if failure.errno in _EXHAUSTED:
        raise TryLater(
            f"the workspace cannot be read now ({failure.strerror})",
            "if it stays so, close programs, or raise their limit on open files (ulimit -n)",
        ) from None


def open_workspace(path: str) -> int:
    """Open the workspace's top directory. Raises `WorkspaceError`, or `TryLater` if a resource is used up."""
    try:
        return os.open(path, _DIRECTORY)
    except FileNotFoundError:
        what = "does not exist"
    except OSError as failure:
        raise_if_exhausted(failure)
        if failure.errno in (errno.ENOTDIR, errno.ELOOP):
            what = "is no longer a directory" if not os.path.islink(path) else "was replaced by a link"
        else:
            what = f"cannot be read ({failure.strerror})"
    raise WorkspaceError(
        f"the workspace {path!r} {what}",
        "bring it back, or correct workspace.path with `syncd config edit`; nothing was removed",
    )


def open_directory(name: str, parent: int | None) -> int:
    """Open the directory `name` in `parent` (None: `name` is a path). Raises `OSError`, also for a link."""
    return os.open(name, _DIRECTORY, dir_fd=parent)


def open_file(name: str, parent: int | None, flags: int = FILE) -> tuple[int, os.stat_result]:
    """Open the regular file `name` in `parent` (None: `name` is a path), and return its status too.

    Raises `OSError`, also for any other kind.
    """
    descriptor = os.open(name, flags, dir_fd=parent)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", name)
    return descriptor, status


def blocks_of(name: str, parent: int | None = None) -> Iterator[bytes]:
    """Yield the content of the regular file `name` in `parent` (None: `name` is a path). Raises `OSError`."""
    descriptor, _ = open_file(name, parent)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def write_blocks(blocks: Iterable[bytes], target: int) -> tuple[bytes, int]:
    """Write a content to an open file, and return its SHA-256 and size. Raises `OSError`."""
    hashed, size_bytes = hashlib.sha256(), 0
    for block in blocks:
        hashed.update(block)
        size_bytes += len(block)
        write_all(target, block)
    return hashed.digest(), size_bytes


def write_all(target: int, block: bytes) -> None:
    """Write these bytes to an open file. Raises `OSError`."""
    view = memoryview(block)
    while view:
        view = view[os.write(target, view) :]


class DirCursor:
    """The open directories from a top directory, which it owns, down to a current one; fast for paths in order."""

    def __init__(self, top: int, enter: Callable[[str, int], int] = open_directory) -> None:
        self._enter = enter
        self._folder: str | None = ""  # the current directory; None: opening it failed
        self._names: list[str] = []
        self._descriptors = [top]

    def parent_of(self, path: str) -> tuple[int, str]:
        """Return the descriptor of the path's directory, and the path's last name. Raises `OSError`."""
        folder, _, name = path.rpartition("/")
        if folder != self._folder:
            self._folder = None
            self._go_to(folder.split("/") if folder else [])
            self._folder = folder
        return self._descriptors[-1], name

    def _go_to(self, folders: list[str]) -> None:
        shared = 0
        for current, wanted in zip(self._names, folders, strict=False):
            if current != wanted:
                break
            shared += 1
        while len(self._names) > shared:
            self._names.pop()
            os.close(self._descriptors.pop())
        for folder in folders[shared:]:
            self._descriptors.append(self._enter(folder, self._descriptors[-1]))
            self._names.append(folder)

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
