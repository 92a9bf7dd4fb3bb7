"""Finds the git repository that a workspace lies in, as git does from there (setup.c, gitrepository-layout(5)).

Git itself is not run, as each scan needs the answer. Git's environment variables (`GIT_DIR`,
`GIT_CEILING_DIRECTORIES`) are not used: a daemon's environment is not that of the user's shell. The owner of the
repository does not matter, although git refuses one of another user (`safe.directory`): only rules are read from it,
and they only exclude more paths.
"""

from __future__ import annotations

import errno
import os
import re
import stat

from msgspec import Struct

from syncd.core.errors import SyncdError
from syncd.selection import safe_open

GIT = ".git"
EXCLUDE = "info/exclude"
_POINTER = b"gitdir: "
_MAX_POINTER_BYTES = 1 << 16
# HEAD holds a reference, or the digest of a commit.
_HEAD = re.compile(rb"ref:\s*refs/|[0-9a-f]{40}")
_BRANCH = re.compile(rb"ref:\s*refs/heads/([^\0-\x20]+)\n?")
# The file does not exist, or git, which runs as the same user, cannot find it either.
NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO})
_HIDDEN = NO_FILE | {errno.EACCES}


class Repository(Struct, frozen=True):
    """A repository. `top` is the work tree's directory, `folder` holds `info/exclude`; empty: `.git` leads nowhere."""

    top: str
    folder: str

    @property
    def exclude(self) -> str:
        """Return the path of its exclude file; empty if it has no folder for one."""
        return self.folder and os.path.join(self.folder, EXCLUDE)


def repository_around(workspace: str) -> Repository | None:
    """Return the innermost repository whose work tree holds the workspace.

    As in git, the search ends at the border of the workspace's file system, and at a bare repository. Raises `OSError`
    where there may be a repository that cannot be read.
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


def branch_of(workspace: str) -> str:
    """Return the name of the branch that the workspace's own repository has checked out, else "main".

    The sandbox gets the name, so it is read from the workspace alone: not through a link, and not from a repository
    that a `gitdir:` file names or that lies above.
    """
    try:
        with safe_open.DirCursor(safe_open.open_workspace(workspace)) as cursor:
            folder, name = cursor.parent_of(f"{GIT}/HEAD")
            head = _BRANCH.fullmatch(_content(safe_open.open_file(name, folder)[0]))
    except (OSError, SyncdError):
        return "main"
    return os.fsdecode(head[1]) if head else "main"


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
        # A linked work tree, or a submodule. Where the file leads nowhere, git stops instead of searching further up.
        pointer = _read(git)
        target = os.fsdecode(pointer.removeprefix(_POINTER).rstrip(b"\r\n")) if pointer.startswith(_POINTER) else ""
        folder = os.path.realpath(os.path.join(top, target))
        return Repository(top, _common(folder) if target and _is_repository(folder) else "")
    if stat.S_ISDIR(mode) and _is_repository(git):
        return Repository(top, _common(git))
    return None


def _is_repository(folder: str) -> bool:
    """True if git accepts the folder as a repository: any folder may be called `.git`."""
    if not _HEAD.match(_read(os.path.join(folder, "HEAD"))):
        return False
    common = _common(folder)
    return os.path.isdir(os.path.join(common, "objects")) and os.path.isdir(os.path.join(common, "refs"))


def _common(folder: str) -> str:
    """Return the folder that all work trees share; a linked work tree's folder names it."""
    target = os.fsdecode(_read(os.path.join(folder, "commondir")).rstrip(b"\r\n"))
    return os.path.realpath(os.path.join(folder, target)) if target else folder


def _read(path: str) -> bytes:
    """Return the beginning of a small file; empty if it does not exist."""
    try:
        descriptor, _ = safe_open.open_file(path, None, safe_open.LINKED_FILE)
    except OSError as failure:
        if failure.errno in NO_FILE:
            return b""
        raise
    return _content(descriptor)


def _content(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_MAX_POINTER_BYTES)
