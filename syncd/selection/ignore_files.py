"""Reads the ignore files of a directory through its descriptor, as git does: never through a link.

Reads also the rules that git honours in a workspace and that lie outside of it: the person's exclude file, and those of
the repository around it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from syncd.selection import safe_open
from syncd.selection.repository import EXCLUDE, GIT, NO_FILE, Repository, repository_around
from syncd.selection.selection import GITIGNORE, NO_OUTER_RULES, OuterFile, OuterRules

# An ignore file larger than this is no ignore file; git itself has no limit, and no use for one. The first part of its
# rules is not read either: what the last ones keep at home would leave.
_LARGEST_BYTES = 4 << 20

Names = frozenset[str]


@dataclass(frozen=True)
class GitRules:
    """What git's rules from outside of the workspace's own directories say now.

    `places` are the directories in which they lie or may yet come to lie, each with the names that matter there.
    """

    rules: OuterRules = NO_OUTER_RULES
    places: Mapping[str, Names] = field(default_factory=dict)


def read_ignore_files(descriptor: int, names: Iterable[str]) -> Mapping[str, bytes]:
    """The contents by name of those files that are in the directory.

    Raises `OSError` for one that is there and cannot be read: without its rules, nothing beside it may leave.
    """
    files: dict[str, bytes] = {}
    for name in names:
        try:
            files[name] = _read_whole(name, descriptor)
        except OSError as failure:
            if failure.errno not in NO_FILE:
                raise _unreadable(name, failure) from None
    return files


def read_git_rules(workspace: str, personal: str) -> GitRules:
    """The person's exclude file, the repository's own, and its `.gitignore` files above the workspace.

    Raises `OSError` for one that is there and cannot be read: git would go on without its rules, an upload must not.
    """
    files: list[OuterFile] = []
    if personal:
        with _absent_or_unreadable(personal):
            files.append(OuterFile(personal, "", _read_linked(personal)))
    try:
        repository = repository_around(workspace)
    except OSError as failure:
        if failure.errno in NO_FILE:
            raise  # the workspace itself is gone: what rules it had, nobody can say
        raise _unreadable(os.path.join(GIT, EXCLUDE), failure) from None
    if repository is None:
        return GitRules(OuterRules("", tuple(files)))
    if repository.exclude:
        name = _shown(repository, workspace)
        with _absent_or_unreadable(name):
            files.append(OuterFile(name, "", _read_linked(repository.exclude)))
    places = {repository.folder: frozenset({"info"})} if repository.folder else {}
    if repository.folder and os.path.isdir(info := os.path.dirname(repository.exclude)):
        places = {info: frozenset({os.path.basename(repository.exclude)})}
    below = os.path.relpath(workspace, repository.top) if workspace != repository.top else ""
    folder, on_the_way = "", below.split("/") if below else []
    for name in on_the_way:
        here = os.path.join(repository.top, folder) if folder else repository.top
        places[here] = frozenset({GITIGNORE, GIT})
        path = os.path.join(here, GITIGNORE)
        with _absent_or_unreadable(path):
            files.append(OuterFile(path, folder, _read_whole(path, None)))
        folder = f"{folder}/{name}" if folder else name
    return GitRules(OuterRules(below, tuple(files)), places)


def _shown(repository: Repository, workspace: str) -> str:
    own = os.path.join(workspace, GIT)
    return os.path.join(GIT, EXCLUDE) if repository.folder == own else repository.exclude


@contextlib.contextmanager
def _absent_or_unreadable(name: str) -> Iterator[None]:
    """A file that is not there has no rules; one that is there and cannot be read is an `OSError` with its name."""
    try:
        yield
    except OSError as failure:
        if failure.errno not in NO_FILE:
            raise _unreadable(name, failure) from None


def _read_linked(path: str) -> bytes:
    """A file that git reads through a link, too, as people keep such files elsewhere."""
    return _read_whole(path, None, safe_open.LINKED_FILE)


def _read_whole(name: str, parent: int | None, flags: int = safe_open.FILE) -> bytes:
    descriptor, status = safe_open.open_file(name, parent, flags)
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > _LARGEST_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return file.read(_LARGEST_BYTES)


def _unreadable(name: str, failure: OSError) -> OSError:
    return OSError(failure.errno, f"its rules in {name} cannot be read: {failure.strerror}")
