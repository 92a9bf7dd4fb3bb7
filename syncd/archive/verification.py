"""Holds the workspace against an archive of the sandbox's, byte for byte, as the archive comes in.

Nothing of either is kept but which paths were seen, so the size of both does not matter.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from typing import BinaryIO

from syncd.archive.comparison import Comparison
from syncd.archive.member_path import inner_path
from syncd.archive.tar_reader import Member, MemberKind, members
from syncd.scan.manifest import Entry, Kind, Manifest
from syncd.selection import safe_open

_BLOCK = 1 << 18
_KINDS = {MemberKind.FILE: Kind.FILE, MemberKind.DIRECTORY: Kind.DIRECTORY, MemberKind.SYMLINK: Kind.SYMLINK}


def verify(workspace: str, manifest: Manifest, packed: Iterable[bytes], check: Callable[[], None]) -> Comparison:
    """Compare what the manifest names in the workspace with the archive. Raises `WorkspaceError`, `BadArchive`, `Stop`.

    What changes or vanishes in the workspace meanwhile counts as different.
    """
    only_there: set[str] = set()
    with safe_open.DirCursor(safe_open.open_workspace(workspace)) as here:
        held = _MemberCheck(here)
        for member, content in members(packed):
            check()
            path = inner_path(member.name)
            if path and path in manifest:
                held.hold(path, manifest[path], member, content)
            elif path != "":
                only_there.add(path or member.name)
    return Comparison(
        missing=[path for path in manifest if path not in held.same],
        different=[path for path in manifest if not held.same.get(path, True)],
        only_there=sorted(only_there, key=os.fsencode),
    )


class _MemberCheck:
    """Which paths were held against a member, and whether they are the same.

    The later of two members of one name counts, as it does when they are extracted.
    """

    def __init__(self, here: safe_open.DirCursor) -> None:
        self._here = here
        self.same: dict[str, bool] = {}

    def hold(self, path: str, entry: Entry, member: Member, content: Iterable[bytes]) -> None:
        try:
            self.same[path] = self._is_same(path, entry, member, content)
        except OSError:
            self.same[path] = False

    def _is_same(self, path: str, entry: Entry, member: Member, content: Iterable[bytes]) -> bool:
        if member.kind is MemberKind.HARD_LINK:
            # Another name of a file that came before, and is known to be as it is here or not.
            target = inner_path(member.target) or ""
            return entry.kind is Kind.FILE and self.same.get(target, False) and _equal(self._here, path, target)
        if _KINDS.get(member.kind) is not entry.kind:
            return False
        if entry.kind is Kind.SYMLINK:
            return entry.target == member.target
        if entry.kind is Kind.DIRECTORY:
            return True
        # Of the permission bits the one that every extractor keeps, whatever its umask.
        if (member.mode ^ entry.mode) & stat.S_IXUSR:
            return False
        with _opened(self._here, path) as file:
            return _size(file) == member.size_bytes and all(file.read(len(block)) == block for block in content)


def _equal(here: safe_open.DirCursor, path: str, other: str) -> bool:
    """Whether two files of the workspace hold the same."""
    with _opened(here, path) as first, _opened(here, other) as second:
        blocks = iter(lambda: second.read(_BLOCK), b"")
        return _size(first) == _size(second) and all(first.read(len(block)) == block for block in blocks)


def _opened(here: safe_open.DirCursor, path: str) -> BinaryIO:
    parent, name = here.parent_of(path)
    return os.fdopen(safe_open.open_file(name, parent)[0], "rb")


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
