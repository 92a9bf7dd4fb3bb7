"""Going down into the workspace by directory descriptors, so that no swapped path can lead outside.

Each step opens one name from its directory's descriptor and follows no link. A directory that is replaced by a link to
`/etc` between two steps is an error, never a way out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from types import TracebackType
from typing import Self

from syncd.core.errors import TryLater, WorkspaceError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO that took a file's place must not be waited for.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
LINKED_FILE = FILE & ~os.O_NOFOLLOW
# What the machine or this process has run out of: no fault of the path that was asked for.
_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def raise_if_exhausted(failure: OSError) -> None:
    """Raise `TryLater` for a failure that says nothing of the path: what is left out for it would be missed at random.

    A snapshot of what could be opened before descriptors ran out is a partial one, and its rules may be too.
    """
    if failure.errno in _SHORTAGE:
        raise TryLater(
            f"the workspace cannot be read now ({failure.strerror})",
            "if it stays so, close programs, or raise their limit on open files (ulimit -n)",
        ) from None


def open_workspace(path: str) -> int:
    """A descriptor of the workspace's top directory. Raises `WorkspaceError` where there is none to be had, and
    `TryLater` where the machine is short of something.
    """
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
        f"the workspace {path!r} {what}", "bring it back or correct workspace.path; nothing was removed"
    )


def open_directory(name: str, parent: int | None) -> int:
    """A descriptor of the directory `name` in `parent` (None: a path). Raises `OSError`; a link is one."""
    return os.open(name, _DIRECTORY, dir_fd=parent)


def open_file(name: str, parent: int | None, flags: int = FILE) -> tuple[int, os.stat_result]:
    """The regular file `name` in `parent` (None: a path), open, and what it is.

    Raises `OSError`, for any other kind too.
    """
    descriptor = os.open(name, flags, dir_fd=parent)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", name)
    return descriptor, status


class DirCursor:
    """Open directories from a top, which it takes over, to where an ordered list of paths is being read or made."""

    def __init__(self, top: int, enter: Callable[[str, int], int] = open_directory) -> None:
        self._enter = enter
        self._folder: str | None = ""  # where it stands; None: a step failed on the way
        self._names: list[str] = []
        self._descriptors = [top]

    def parent_of(self, path: str) -> tuple[int, str]:
        """The descriptor of the path's directory, and the path's last name. Raises `OSError`."""
        folder, _, name = path.rpartition("/")
        if folder != self._folder:
            self._folder = None
            self._go_to(folder.split("/") if folder else [])
            self._folder = folder
        return self._descriptors[-1], name

    def _go_to(self, folders: list[str]) -> None:
        shared = 0
        for have, want in zip(self._names, folders, strict=False):
            if have != want:
                break
            shared += 1
        while len(self._names) > shared:
            self._names.pop()
            os.close(self._descriptors.pop())
        for folder in folders[shared:]:
            self._descriptors.append(self._enter(folder, self._descriptors[-1]))
            self._names.append(folder)

    def close(self) -> None:
        """Close all, the top as well."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
