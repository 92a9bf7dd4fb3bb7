"""Looks at the sandbox's workspace by its archive (`/dump`), for sandboxes that run no programs, and for `verify`.

The archive is read as it comes, in one pass: only the paths and what differs are kept. Nothing can be removed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress

from msgspec.structs import replace

from syncd.archive.exported_files import why_not_kept
from syncd.archive.extraction import Member, MemberKind, inner_path, members
from syncd.core.durable_file import new_file
from syncd.model.entry import ABSENT, Kind, SeenEntry, same
from syncd.model.git_names import is_in_repository
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest, LookResult, Obstacle
from syncd.sandbox.protocol import MOST_NEW, MOST_PATH_BYTES

_KINDS = {
    MemberKind.FILE: Kind.FILE,
    MemberKind.DIRECTORY: Kind.DIRECTORY,
    MemberKind.SYMLINK: Kind.SYMLINK,
    MemberKind.HARD_LINK: Kind.FILE,
    MemberKind.OTHER: Kind.OTHER,
}
_NO_PROGRAMS = "the sandbox runs no programs"


def look_in_archive(
    packed: Iterable[bytes], request: LookRequest, copies_folder: str, check: Callable[[], None]
) -> LookResult:
    """Return what differs in an archive, and copy that into the folder, which is private.

    The paths to remove that are as a version are `failed`. Of places only the kinds are told. A file in the middle of a
    write is not told from others. Of hard links the one that comes first has the content: another one has no copy
    where that has none, and is UNREAD where nobody asks for the first.

    Raises `BadArchive`, also for an archive that is cut short, and what `packed` and `check` raise; then no copy stays.
    """
    look = _ArchiveLook(request, copies_folder, check)
    try:
        for member, content in members(packed):
            check()
            look.add(member, content)
    except BaseException:
        look.remove_copies()
        raise
    return look.result()


class _ArchiveLook:
    """Compares the members of one archive. Of two members of one name the later one counts.

    What differs is copied as far as there is room for so many bytes: nothing is copied into none.
    """

    def __init__(self, request: LookRequest, copies_folder: str, check: Callable[[], None]) -> None:
        self._request = request
        self._check = check
        self._prefix = os.path.join(copies_folder, f"dump-{secrets.token_hex(8)}-")
        self._copies: list[str] = []
        self._left_bytes = request.most_copied_bytes or -1
        self._not_kept = ""  # the reason why another copy cannot be written
        self._found: dict[str, SeenEntry] = {}
        self._pruned: dict[str, None] = {}
        self._new_count = self._new_bytes = self._unlisted = 0

    def add(self, member: Member, content: Iterable[bytes]) -> None:
        """Compare the next member."""
        path, kind = inner_path(member.name), _KINDS[member.kind]
        if path == "":
            return
        item = None if path is None else self._request.items.get(path)
        if path is None or (item is None and not self._count_new(path, kind)):
            self._unlisted += path is None and self._request.find_new
            return
        target = member.target if kind is Kind.SYMLINK else ""
        size_bytes = member.size_bytes if kind is Kind.FILE else 0
        entry = SeenEntry(kind, member.mode, _seconds(member.mtime_s), size_bytes, target)
        if member.kind is MemberKind.HARD_LINK:
            entry = self._linked(entry, item, inner_path(member.target) or "")
        elif kind is Kind.FILE:
            entry = self._read(entry, item, content)
        self._found[path] = entry

    def _count_new(self, path: str, kind: Kind) -> bool:
        """Count a path beyond the request; True if it is to be listed. What is not entered is noted."""
        if not self._request.find_new:
            return False
        if path in self._found:
            return True
        pruned = _pruned_part(path, kind, self._request.pruned_names)
        if pruned in self._pruned:
            return False
        self._new_bytes += len(pruned or path)
        if self._new_count >= MOST_NEW or self._new_bytes > MOST_PATH_BYTES:
            self._unlisted += 1
            return False
        self._new_count += 1
        if pruned:
            self._pruned[pruned] = None
        return not pruned

    def result(self) -> LookResult:
        """Return the outcome, once the archive has come to its end."""
        differing: dict[str, SeenEntry] = {}
        removed: list[str] = []
        failed: dict[str, str] = {}
        blocked: dict[str, Obstacle] = {}
        missing = 0
        for path, item in self._request.each():
            entry = self._found.pop(path, ABSENT)
            if item.action is LookAction.EXISTS:
                missing += entry is ABSENT
            elif item.action is LookAction.COMMITS:
                blocked[path] = Obstacle.UNKNOWN
            elif item.action is LookAction.PLACE:
                if entry is not ABSENT and entry.is_directory is not item.versions[0].is_directory:
                    blocked[path] = Obstacle(entry.kind)
            elif item.action is LookAction.REMOVE and entry is ABSENT:
                removed.append(path)
            elif any(same(entry, version) for version in item.versions):
                if item.action is LookAction.REMOVE:
                    failed[path] = _NO_PROGRAMS
            elif item.versions or entry is not ABSENT:
                differing[path] = entry
        return LookResult(
            differing,
            self._found,
            tuple(self._pruned),
            tuple(removed),
            failed=failed,
            missing=missing,
            blocked=blocked,
            kinds_only=True,
            unlisted=self._unlisted,
            not_kept=self._not_kept,
        )

    def _read(self, entry: SeenEntry, item: LookItem | None, content: Iterable[bytes]) -> SeenEntry:
        """Return a file's entry with its digest, and its copy if one is wanted and can be kept."""
        sha256 = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for block in content:
                self._check()
                sha256.update(block)
                yield block

        blocks, copy = hashed(), ""
        if item is None or item.action is LookAction.FETCH:
            copy = self._copied(blocks, entry.size_bytes)
        deque(blocks, maxlen=0)
        entry = replace(entry, digest=sha256.digest(), copy=copy)
        if _is_fetched(entry, item):
            self._left_bytes -= entry.size_bytes if copy else 0
            return entry
        if copy:
            with suppress(OSError):
                os.unlink(self._copies.pop())
        return replace(entry, copy="")

    def _copied(self, blocks: Iterable[bytes], size_bytes: int) -> str:
        """Write a new file, and return its path; empty if there is no room for it, or it cannot be written."""
        if size_bytes > self._left_bytes:
            return ""
        path = f"{self._prefix}{len(self._copies)}"
        try:
            with new_file(path) as file:
                file.writelines(blocks)
        except OSError as failure:
            self._not_kept = why_not_kept(failure)
            return ""
        self._copies.append(path)
        return path

    def remove_copies(self) -> None:
        for path in self._copies:
            with suppress(OSError):
                os.unlink(path)

    def _linked(self, entry: SeenEntry, item: LookItem | None, target: str) -> SeenEntry:
        """Return the entry of another name for a file that came before."""
        source = self._found.get(target)
        if source is None or source.kind is not Kind.FILE:
            return replace(entry, kind=Kind.UNREAD)
        return source if _is_fetched(source, item) else replace(source, copy="")


def _is_fetched(entry: SeenEntry, item: LookItem | None) -> bool:
    return item is None or (
        item.action is LookAction.FETCH and not any(same(entry, version) for version in item.versions)
    )


def _pruned_part(path: str, kind: Kind, pruned_names: Collection[str]) -> str:
    """Return the part of a path that is not entered: a repository, or a directory of such a name; empty if none is."""
    names = path.split("/")
    for count, name in enumerate(names, 1):
        is_directory = count < len(names) or kind is Kind.DIRECTORY
        if is_in_repository(name) or (is_directory and name in pruned_names):
            return "/".join(names[:count])
    return ""


def _seconds(mtime_s: float) -> int:
    try:
        return int(mtime_s)
    except (ValueError, OverflowError):
        return 0
