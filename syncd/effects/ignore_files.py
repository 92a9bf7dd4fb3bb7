"""Reads the ignore files of a directory through its descriptor, as git does: never through a link."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping

from syncd.effects import descent

# An ignore file larger than this is no ignore file; git itself has no limit, and no use for one. The first part of its
# rules is not read either: what the last ones keep at home would leave.
_LARGEST_BYTES = 4 << 20
_EXCLUDE = ".git/info/exclude"
_POINTER = b"gitdir: "
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# There is none, or a link, a folder or a FIFO of that name: git reads none of these.
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO})


def read_ignore_files(descriptor: int, names: Iterable[str]) -> Mapping[str, bytes]:
    """The contents by name of those files that are in the directory.

    Raises `OSError` for one that is there and cannot be read: without its rules, nothing beside it may leave.
    """
    files: dict[str, bytes] = {}
    for name in names:
        try:
            files[name] = _read_whole(name, descriptor)
        except OSError as failure:
            if failure.errno not in _NO_FILE:
                raise _unreadable(name, failure) from None
    return files


def read_excludes(top: int, personal: str) -> Mapping[str, bytes]:
    """What git honours beside `.gitignore`, the weakest first: the person's file and the repository's own.

    Raises `OSError` for one that is there and cannot be read: git would go on without its rules, an upload must not.
    """
    excludes: dict[str, bytes] = {}
    if personal:
        with _absent_or_unreadable(personal):
            excludes[personal] = _read_personal(personal)
    with _absent_or_unreadable(_EXCLUDE):
        excludes.update(_repository_excludes(top))
    return excludes


@contextlib.contextmanager
def _absent_or_unreadable(name: str) -> Iterator[None]:
    """A file that is not there has no rules; one that is there and cannot be read is an `OSError` with its name."""
    try:
        yield
    except OSError as failure:
        if failure.errno not in _NO_FILE:
            raise _unreadable(name, failure) from None


def _repository_excludes(top: int) -> Mapping[str, bytes]:
    name = _EXCLUDE
    try:
        git = descent.open_directory(".git", top)
    except OSError as failure:
        if failure.errno != errno.ENOTDIR:
            raise
        git = _linked_repository(top)
        name = os.path.join(os.readlink(f"/proc/self/fd/{git}"), "info/exclude")
    try:
        info = descent.open_directory("info", git)
    finally:
        os.close(git)
    try:
        return {name: _read_whole("exclude", info)}
    finally:
        os.close(info)


def _linked_repository(top: int) -> int:
    """Where `.git` is a file, as in a linked work tree or a submodule: it names a folder, and that the common one.

    See gitrepository-layout(5). Nothing but rules is read there.
    """
    pointer = _read_whole(".git", top)
    if not pointer.startswith(_POINTER):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    own = os.open(pointer.removeprefix(_POINTER).rstrip(b"\r\n"), _FOLDER, dir_fd=top)
    try:
        common = _read_whole("commondir", own).rstrip(b"\r\n")
        return os.open(common, _FOLDER, dir_fd=own)
    except FileNotFoundError:
        return os.dup(own)
    finally:
        os.close(own)


def _read_personal(path: str) -> bytes:
    """A person's own file may be a link, as people keep such files elsewhere."""
    return _read_whole(os.path.realpath(path), None)


def _read_whole(name: str, parent: int | None) -> bytes:
    descriptor, status = descent.open_file(name, parent)
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > _LARGEST_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return file.read(_LARGEST_BYTES)


def _unreadable(name: str, failure: OSError) -> OSError:
    return OSError(failure.errno, f"its rules in {name} cannot be read: {failure.strerror}")
