"""Compares the workspace with an archive of the sandbox, byte for byte, while the archive is received.

Only the paths that were compared are kept in memory, whatever the size of both, and a bounded number of others.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from typing import BinaryIO

from msgspec import Struct

from syncd.archive.tar_reader import Member, MemberKind, inner_path, is_within, members
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.selection import safe_open

_BLOCK = 1 << 18
_MOST_NAMED_BYTES = 8 << 20  # of what is only there
_KINDS = {MemberKind.FILE: Kind.FILE, MemberKind.DIRECTORY: Kind.DIRECTORY, MemberKind.SYMLINK: Kind.SYMLINK}


class Comparison(Struct, frozen=True):
    """Paths that differ, in order. Those in `only_there` are expected if `sandbox.deletions` is "keep".

    `unnamed` counts others of these, which are too many to be kept.
    """

    missing: list[str]
    different: list[str]
    only_there: list[str]
    unnamed: int

    @property
    def equal(self) -> bool:
        """True if the archive holds all of the workspace unchanged."""
        return not self.missing and not self.different


def verify(
    workspace: str, manifest: Manifest, packed: Iterable[bytes], check: Callable[[], None], passed_over: str = ""
) -> Comparison:
    """Compare the manifest's paths in the workspace with the archive. Raises `WorkspaceError`, `BadArchive`, `Stop`.

    What is only there within the folder `passed_over` does not count.

    A path that changes or vanishes in the workspace meanwhile counts as different.
    """
    same: dict[str, bool] = {}  # of two members with the same name the later one counts, as when they are extracted
    only_there: set[str] = set()
    left_bytes, unnamed = _MOST_NAMED_BYTES, 0
    with safe_open.DirCursor(safe_open.open_workspace(workspace)) as local:
        for member, content in members(packed):
            check()
            path = inner_path(member.name)
            if path and path in manifest:
                entry = manifest[path]
                try:
                    if member.kind is MemberKind.HARD_LINK:
                        # Another name of an earlier member, which was compared already.
                        target = inner_path(member.target) or ""
                        same[path] = entry.kind is Kind.FILE and same.get(target, False) and _equal(local, path, target)
                    else:
                        same[path] = _is_same(local, path, entry, member, content)
                except OSError:
                    same[path] = False
            elif path != "" and not is_within(path, passed_over):
                name = path or member.name.replace("\0", "…")
                if name in only_there:
                    continue
                left_bytes -= len(name)
                if left_bytes > 0:
                    only_there.add(name)
                else:
                    unnamed += 1
    return Comparison(
        missing=[path for path in manifest if path not in same],
        different=[path for path in manifest if not same.get(path, True)],
        only_there=sorted(only_there, key=os.fsencode),
        unnamed=unnamed,
    )


def _is_same(local: safe_open.DirCursor, path: str, entry: Entry, member: Member, content: Iterable[bytes]) -> bool:
    """True if the member is as the path in the workspace. Raises `OSError`."""
    if _KINDS.get(member.kind) is not entry.kind:
        return False
    if entry.kind is Kind.SYMLINK:
        return entry.target == member.target
    if entry.kind is Kind.DIRECTORY:
        return True
    # The one permission bit that every extractor keeps, whatever its umask.
    if (member.mode ^ entry.mode) & stat.S_IXUSR:
        return False
    with _opened(local, path) as file:
        return _size(file) == member.size_bytes and all(file.read(len(block)) == block for block in content)


def _equal(local: safe_open.DirCursor, path: str, other: str) -> bool:
    """True if two files of the workspace have the same content."""
    with _opened(local, path) as first, _opened(local, other) as second:
        blocks = iter(lambda: second.read(_BLOCK), b"")
        return _size(first) == _size(second) and all(first.read(len(block)) == block for block in blocks)


def _opened(local: safe_open.DirCursor, path: str) -> BinaryIO:
    parent, name = local.parent_of(path)
    return os.fdopen(safe_open.open_file(name, parent)[0], "rb")


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
