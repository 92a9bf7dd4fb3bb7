"""Reads the ignore files of a directory through its descriptor, as git does: never through a link."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping

from syncd.effects import descent

# An ignore file larger than this is no ignore file; git itself has no limit, and no use for one.
_LARGEST_BYTES = 4 << 20
_EXCLUDE = ".git/info/exclude"


def read_ignore_files(descriptor: int, names: Iterable[str]) -> Mapping[str, bytes]:
    """The contents by name of those files that are in the directory.

    Raises `OSError` for one that is there and cannot be read: without its rules, nothing beside it may leave.
    """
    files: dict[str, bytes] = {}
    for name in names:
        try:
            files[name] = _read_whole(name, descriptor)
        except FileNotFoundError:
            continue
        except OSError as failure:
            if failure.errno in (errno.ELOOP, errno.EINVAL, errno.EISDIR):
                continue  # a link or a folder of that name: git reads neither
            raise OSError(failure.errno, f"its rules in {name} cannot be read: {failure.strerror}") from None
    return files


def read_excludes(top: int, personal: str) -> Mapping[str, bytes]:
    """What git honours beside `.gitignore`, the weakest first: the person's file and the repository's own."""
    excludes: dict[str, bytes] = {}
    if personal:
        with contextlib.suppress(OSError), open(personal, "rb") as file:
            excludes[personal] = file.read(_LARGEST_BYTES)
    excludes.update(_repository_excludes(top))
    return excludes


def _repository_excludes(top: int) -> Mapping[str, bytes]:
    try:
        git = descent.open_directory(".git", top)
        try:
            info = descent.open_directory("info", git)
        finally:
            os.close(git)
        try:
            return {_EXCLUDE: _read_whole("exclude", info)}
        finally:
            os.close(info)
    except OSError:
        return {}


def _read_whole(name: str, parent: int) -> bytes:
    descriptor, _ = descent.open_file(name, parent)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_LARGEST_BYTES)
