"""Merges two versions of a text with their common base, by git-merge-file(1), outside of any repository.

Git merges bytes: it converts no line end, adds no newline at the end, and reads no attribute. Where only one side
changed the line ends of a file, each of its lines changed, so that any change of the other side is a conflict.
"""

from __future__ import annotations

import os
import tempfile
from enum import Enum

from syncd.core.errors import SyncdError
from syncd.merge.git import Git

# Git takes a file with a NUL in so many of its first bytes for a binary one (xdiff-interface.c).
_BINARY_PREFIX_BYTES = 8000
# `git merge-file` ends with the number of conflicts, at most this one; with more if it failed.
_MOST_CONFLICTS = 127


class NoMerge(Enum):
    """The reason for which there is no merged text."""

    CONFLICT = "both sides changed the same lines"
    BINARY = "it is no text"
    NO_GIT = "git is not installed"
    GIT_FAILED = "git failed"


def is_binary(content: bytes) -> bool:
    """Return True if git takes the content for a binary one."""
    return b"\0" in content[:_BINARY_PREFIX_BYTES]


def merge(git: Git | None, base: bytes, ours: bytes, theirs: bytes, scratch: str | None = None) -> bytes | NoMerge:
    """Return the text with the changes of both sides, or the reason for which there is none.

    `git` is None where none is installed. The texts are written into a private folder of `scratch` meanwhile (None:
    the system's folder for temporary files).
    """
    if any(map(is_binary, (base, ours, theirs))):
        return NoMerge.BINARY
    if git is None:
        return NoMerge.NO_GIT
    with tempfile.TemporaryDirectory(prefix="syncd-merge-", dir=scratch) as private:
        paths = [os.path.join(private, name) for name in ("ours", "base", "theirs")]
        for path, content in zip(paths, (ours, base, theirs), strict=True):
            with open(path, "xb") as file:
                file.write(content)
        try:
            # Without a repository, or it would read the configuration of one around the folder.
            outside = {"GIT_DIR": os.path.join(private, "none")}
            result = git.run(["merge-file", "-p", "--quiet", *paths], outside, range(-255, 256))
        except SyncdError:
            return NoMerge.GIT_FAILED
    if 0 < result.code <= _MOST_CONFLICTS:
        return NoMerge.CONFLICT
    return NoMerge.GIT_FAILED if result.code else result.output
