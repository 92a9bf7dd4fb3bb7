"""Compares another folder with the workspace: every path of a manifest, byte for byte."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from msgspec import Struct, field

from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.selection import safe_open

_BLOCK = 1 << 18
# The one permission bit that every extractor keeps, whatever its umask.
_EXECUTABLE = stat.S_IXUSR


class Comparison(Struct):
    """Paths that differ, in order. Those in `only_there` are expected if `sandbox.deletions` is "keep".

    `unnamed` counts others of these, which are too many to be kept.
    """

    missing: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    only_there: list[str] = field(default_factory=list)
    unnamed: int = 0

    @property
    def equal(self) -> bool:
        """True if the other folder holds all of the workspace unchanged."""
        return not self.missing and not self.different


def compare(workspace: str, manifest: Manifest, folder: str) -> Comparison:
    """Compare the manifest's paths in the workspace with those in `folder`. Raises `WorkspaceError`.

    A path that changes or vanishes in the workspace meanwhile counts as different.
    """
    found = Comparison()
    try:
        top = safe_open.open_directory(folder, None)
    except OSError:
        return Comparison(missing=list(manifest))
    # The other folder is opened by descriptors too: through a link, another place would be compared.
    with safe_open.DirCursor(top) as other, safe_open.DirCursor(safe_open.open_workspace(workspace)) as local:
        for path, entry in manifest.items():
            try:
                parent, name = other.parent_of(path)
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except OSError:
                found.missing.append(path)
                continue
            try:
                same = _is_same(local, path, entry, parent, status)
            except OSError:
                same = False
            if not same:
                found.different.append(path)
    found.only_there = sorted(_paths(folder) - set(manifest))
    return found


def _is_same(local: safe_open.DirCursor, path: str, entry: Entry, folder: int, status: os.stat_result) -> bool:
    if entry.kind is Kind.DIRECTORY:
        return stat.S_ISDIR(status.st_mode)
    parent, name = local.parent_of(path)
    if entry.kind is Kind.SYMLINK:
        return stat.S_ISLNK(status.st_mode) and os.readlink(name, dir_fd=parent) == os.readlink(name, dir_fd=folder)
    if not stat.S_ISREG(status.st_mode) or (status.st_mode ^ entry.mode) & _EXECUTABLE:
        return False
    with (
        os.fdopen(safe_open.open_file(name, parent)[0], "rb") as ours,
        os.fdopen(safe_open.open_file(name, folder)[0], "rb") as theirs,
    ):
        return _same_bytes(ours, theirs)


def _same_bytes(ours: BinaryIO, theirs: BinaryIO) -> bool:
    while True:
        block = ours.read(_BLOCK)
        if block != theirs.read(_BLOCK):
            return False
        if not block:
            return True


def _paths(top: str) -> set[str]:
    found: set[str] = set()
    for folder, directories, files in os.walk(top):
        inside = os.path.relpath(folder, top)
        found.update(os.path.normpath(os.path.join(inside, name)) for name in (*directories, *files))
    return found
