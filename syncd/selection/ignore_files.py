"""Reads the ignore files of a directory through its descriptor, and never through a link, as git does.

It also reads git's rules that lie outside of the workspace (the user's exclude file, and the files of the repository
around the workspace), and finds syncd's own files in it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from syncd.selection import safe_open
from syncd.selection.git_repository import EXCLUDE, GIT, NO_FILE, Repository, repository_around
from syncd.selection.selection import GITIGNORE, NO_OUTER_RULES, OuterFile, OuterRules, Selection

# A larger file is refused; git itself has no limit. Reading only its beginning would ignore the last rules, and upload
# the paths that they exclude.
LARGEST_BYTES = 4 << 20
_MOST_LINKS = 40  # as the kernel follows

Names = frozenset[str]


class RulesOutside(Struct, frozen=True):
    """The current rules from outside of the workspace's own directories.

    `directories` hold such rules or may hold them later, each with the names of the files that matter there.
    """

    rules: OuterRules = NO_OUTER_RULES
    directories: Mapping[str, Names] = field(default_factory=dict)


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
        if not stat.S_ISDIR(status.st_mode):  # one that a configuration names is no key, and is not left out
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

    Raises `OSError` for one that exists and cannot be read: git would go on without its rules, an upload must not.
    """
    files: list[OuterFile] = []
    if personal:
        with _absent_or_unreadable(personal):
            files.append(OuterFile(personal, "", _read_linked(personal)))
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
            files.append(OuterFile(name, "", _read_linked(repository.exclude)))
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


def _read_linked(path: str) -> bytes:
    """Read a file that may be a link: git follows links to it, as people keep such files elsewhere."""
    return _read_whole(path, None, safe_open.LINKED_FILE)


def _read_whole(name: str, parent: int | None, flags: int = safe_open.FILE) -> bytes:
    descriptor, status = safe_open.open_file(name, parent, flags)
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > LARGEST_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return file.read(LARGEST_BYTES)


def _unreadable(name: str, failure: OSError) -> OSError:
    return OSError(failure.errno, f"its rules in {name} cannot be read: {failure.strerror}")
