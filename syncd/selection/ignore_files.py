"""Reads the ignore files of a directory through its descriptor, and never through a link, as git does.

It returns their bytes, which `gitignore` parses. It also reads git's rules that lie outside of the workspace (the
user's exclude file, and the files of the repository around the workspace), and finds syncd's own files in it.

The repository is found as git does from there (setup.c, gitrepository-layout(5)). Git itself is not run, as each scan
needs the answer. Git's environment variables (`GIT_DIR`, `GIT_CEILING_DIRECTORIES`) are not used: a daemon's
environment is not that of the user's shell. The owner of the repository does not matter, although git refuses one of
another user (`safe.directory`): only rules are read from it, and they only exclude more paths.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from syncd.core import safe_open
from syncd.core.errors import SyncdError
from syncd.selection.selection import GITIGNORE, NO_OUTER_RULES, OuterFile, OuterRules, Selection

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


# A larger file is refused; git itself has no limit. Reading only its beginning would ignore the last rules, and upload
# the paths that they exclude.
_LARGEST_FILE_BYTES = 4 << 20
_MOST_LINKS = 40  # as the kernel follows


class RulesOutside(Struct, frozen=True):
    """The current rules from outside of the workspace's own directories.

    `directories` hold such rules or may hold them later, each with the names of the files that matter there.
    """

    rules: OuterRules = NO_OUTER_RULES
    directories: Mapping[str, frozenset[str]] = field(default_factory=dict)


def read_ignore_files(descriptor: int, names: Iterable[str]) -> Mapping[str, bytes]:
    """Return the contents, by name, of those files that exist in the directory.

    Raises `OSError` for one that exists and cannot be read: without its rules, nothing beside it may be uploaded.
    """
    files: dict[str, bytes] = {}
    for name in names:
        try:
            files[name] = _read_whole(name, descriptor)
        except OSError as failure:
            if failure.errno not in NO_FILE:
                raise _unreadable(name, failure) from None
    return files


def read_rules_outside(workspace: str, selection: Selection, personal: str) -> RulesOutside:
    """Read git's rules, if they apply, and find syncd's own files as they are now. Raises `OSError` as for git's."""
    found = _read_git_rules(workspace, personal) if selection.uses_gitignore else RulesOutside()
    places = {place for path in selection.own_folders for place in _places(path)}
    inodes = set()
    for place in {place for path in selection.own_files() for place in _places(path)}:
        try:
            status = os.lstat(place)
        except OSError:
            places.add(place)  # it may come at any moment
            continue
        if stat.S_ISREG(status.st_mode):
            inodes.add((status.st_dev, status.st_ino))
        if not stat.S_ISDIR(status.st_mode):  # one that a configuration names is no key, and is not excluded
            places.add(place)
    top = os.path.join(workspace, "")
    paths = sorted(place.removeprefix(top) for place in places if place.startswith(top))
    return replace(found, rules=replace(found.rules, own_paths=tuple(paths), own_inodes=frozenset(inodes)))


def _places(path: str) -> Iterator[str]:
    """Yield the path without links in its folders, and where it leads if it is a link, each step of the way."""
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(path)
        folder = os.path.realpath(folder)
        yield os.path.join(folder, name)
        try:
            path = os.path.join(folder, os.readlink(os.path.join(folder, name)))
        except OSError:
            return


def _read_git_rules(workspace: str, personal: str) -> RulesOutside:
    """Read the user's exclude file, the repository's own, and its `.gitignore` files above the workspace.

    As git does, it follows a link to the first two, which people keep elsewhere.

    Raises `OSError` for one that exists and cannot be read: git would go on without its rules, an upload must not.
    """
    files: list[OuterFile] = []
    if personal:
        with _absent_or_unreadable(personal):
            files.append(OuterFile(personal, "", _read_whole(personal, None, safe_open.LINKED_FILE)))
    try:
        repository = repository_around(workspace)
    except OSError as failure:
        if failure.errno in NO_FILE:
            raise  # the workspace itself does not exist, so its rules are unknown
        raise _unreadable(os.path.join(GIT, EXCLUDE), failure) from None
    if repository is None:
        return RulesOutside(OuterRules("", tuple(files)))
    if repository.exclude:
        name = _shown(repository, workspace)
        with _absent_or_unreadable(name):
            files.append(OuterFile(name, "", _read_whole(repository.exclude, None, safe_open.LINKED_FILE)))
    directories = {repository.folder: frozenset({"info"})} if repository.folder else {}
    if repository.folder and os.path.isdir(info := os.path.dirname(repository.exclude)):
        directories = {info: frozenset({os.path.basename(repository.exclude)})}
    relative = os.path.relpath(workspace, repository.top) if workspace != repository.top else ""
    folder = ""
    for name in relative.split("/") if relative else []:
        directory = os.path.join(repository.top, folder) if folder else repository.top
        directories[directory] = frozenset({GITIGNORE, GIT})
        path = os.path.join(directory, GITIGNORE)
        with _absent_or_unreadable(path):
            files.append(OuterFile(path, folder, _read_whole(path, None)))
        folder = f"{folder}/{name}" if folder else name
    return RulesOutside(OuterRules(relative, tuple(files)), directories)


def _shown(repository: Repository, workspace: str) -> str:
    own = os.path.join(workspace, GIT)
    return os.path.join(GIT, EXCLUDE) if repository.folder == own else repository.exclude


@contextlib.contextmanager
def _absent_or_unreadable(name: str) -> Iterator[None]:
    """Ignore the error of a file that does not exist; raise any other as an `OSError` with the file's name."""
    try:
        yield
    except OSError as failure:
        if failure.errno not in NO_FILE:
            raise _unreadable(name, failure) from None


def _read_whole(name: str, parent: int | None, flags: int = safe_open.FILE) -> bytes:
    descriptor, status = safe_open.open_file(name, parent, flags)
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > _LARGEST_FILE_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return file.read(_LARGEST_FILE_BYTES)


def _unreadable(name: str, failure: OSError) -> OSError:
    return OSError(failure.errno, f"its rules in {name} cannot be read: {failure.strerror}")
