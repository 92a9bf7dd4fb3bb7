"""Finds the git repository that a workspace lies in, as git does from there (setup.c, gitrepository-layout(5)).

Git itself is not run, as this is asked at each scan. Its environment (`GIT_DIR`, `GIT_CEILING_DIRECTORIES`) does not
count: a daemon's is not that of the person's shell. Neither does it matter who owns the repository, which git refuses
to use if it is somebody else (`safe.directory`): nothing but rules is read of it, and with them more stays home.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass

from syncd.selection import safe_open

GIT = ".git"
EXCLUDE = "info/exclude"
_POINTER = b"gitdir: "
_LONGEST_POINTER_BYTES = 1 << 16
# HEAD is a reference, or the digest of a commit.
_HEAD = re.compile(rb"ref:\s*refs/|[0-9a-f]{40}")
# There is none, or nobody can know: not even git, which is the same user's.
NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO})
_HIDDEN = NO_FILE | {errno.EACCES}


@dataclass(frozen=True)
class Repository:
    """`top` is the work tree's own directory, `folder` holds its `info/exclude`; empty: its `.git` leads nowhere."""

    top: str
    folder: str

    @property
    def exclude(self) -> str:
        """The path of its exclude file; empty if it can have none."""
        return self.folder and os.path.join(self.folder, EXCLUDE)


def repository_around(workspace: str) -> Repository | None:
    """The innermost repository with the workspace in its work tree.

    As git does, it is not looked for beyond the file system that the workspace is on, nor beyond a bare repository.
    Raises `OSError` where a repository may be there, and cannot be read.
    """
    folder, device = workspace, os.stat(workspace).st_dev
    while True:
        found = _repository_at(folder)
        if found is not None:
            return found
        above = os.path.dirname(folder)
        if above == folder or _is_repository(folder) or _device(above) != device:
            return None
        folder = above


def _device(folder: str) -> int | None:
    try:
        return os.stat(folder).st_dev
    except OSError as failure:
        if failure.errno in _HIDDEN:
            return None
        raise


def _repository_at(top: str) -> Repository | None:
    git = os.path.join(top, GIT)
    try:
        mode = os.stat(git).st_mode
    except OSError as failure:
        if failure.errno in _HIDDEN:
            return None
        raise
    if stat.S_ISREG(mode):
        # A linked work tree, or a submodule. Where the file leads nowhere, git gives up instead of looking further up.
        pointer = _read(git)
        named = os.fsdecode(pointer.removeprefix(_POINTER).rstrip(b"\r\n")) if pointer.startswith(_POINTER) else ""
        folder = os.path.realpath(os.path.join(top, named))
        return Repository(top, _common(folder) if named and _is_repository(folder) else "")
    if stat.S_ISDIR(mode) and _is_repository(git):
        return Repository(top, _common(git))
    return None


def _is_repository(folder: str) -> bool:
    """Whether git takes the folder for one: any folder may be called `.git`."""
    if not _HEAD.match(_read(os.path.join(folder, "HEAD"))):
        return False
    common = _common(folder)
    return os.path.isdir(os.path.join(common, "objects")) and os.path.isdir(os.path.join(common, "refs"))


def _common(folder: str) -> str:
    """A linked work tree's folder names the one that is common to all."""
    named = os.fsdecode(_read(os.path.join(folder, "commondir")).rstrip(b"\r\n"))
    return os.path.realpath(os.path.join(folder, named)) if named else folder


def _read(path: str) -> bytes:
    """The beginning of a small file; nothing if there is none."""
    try:
        descriptor, _ = safe_open.open_file(path, None, safe_open.LINKED_FILE)
    except OSError as failure:
        if failure.errno in NO_FILE:
            return b""
        raise
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_LONGEST_POINTER_BYTES)
