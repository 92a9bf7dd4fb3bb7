"""Looks at the sandbox's workspace by its archive (`/dump`), for sandboxes that run no programs.

The archive is read as it comes, in one pass: only the paths and what differs are kept. Nothing can be removed.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, suppress

from msgspec.structs import replace

from syncd.archive.exported_files import new_file, unwritable
from syncd.archive.extraction import Member, MemberKind, inner_path, members
from syncd.core.waiter import Work
from syncd.model.entry import ABSENT, Kind, SeenEntry, same
from syncd.model.git_names import is_in_repository
from syncd.remote.bucket import Dump
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest, LookResult, Missing, Obstacle
from syncd.sandbox.protocol import MOST_NEW, MOST_PATH_BYTES

# A smaller file is compared before anything of it is written.
_MOST_IN_MEMORY = 1 << 20
_KINDS = {
    MemberKind.FILE: Kind.FILE,
    MemberKind.DIRECTORY: Kind.DIRECTORY,
    MemberKind.SYMLINK: Kind.SYMLINK,
    MemberKind.HARD_LINK: Kind.FILE,
    MemberKind.OTHER: Kind.OTHER,
}
_NO_PROGRAMS = "the sandbox runs no programs"


class DumpLooker:
    """Looks at one sandbox's workspace without running a program in it."""

    def __init__(self, dump: Dump) -> None:
        self._dump = dump

    def look(self, request: LookRequest, copies_folder: str, check: Callable[[], None] = lambda: None) -> LookResult:
        """Look once, and copy what differs into that folder, which is private.

        Raises `StepFailed`, also for an archive that is cut short, `Superseded`, `Stop`, and what `check` raises; then
        no copy stays. The paths to remove that are as a version are `failed`. Of places only the kinds are told. A file
        in the middle of a write is not told from others.
        """
        looking = self._looked(request, copies_folder, check, frozenset())
        if looking.lacking:
            # Hard links to files whose content was not kept when it came by.
            looking.copies.remove_others(())
            looking = self._looked(request, copies_folder, check, frozenset(looking.lacking))
        return looking.result()

    def _looked(
        self, request: LookRequest, copies_folder: str, check: Callable[[], None], sources: frozenset[str]
    ) -> _ArchiveLook:
        looking = _ArchiveLook(request, _CopyFolder(copies_folder, request.most_copied_bytes), check, sources)

        def read(packed: Iterable[bytes]) -> None:
            for member, content in members(packed):
                check()
                looking.add(member, content)

        with ExitStack() as failed:
            failed.callback(looking.copies.remove_others, ())
            # What is about to be lost is saved whatever changes here meanwhile.
            self._dump.read_once(read, Work.EFFECT if request.find_new else Work.READ)
            failed.pop_all()
        return looking


class _CopyFolder:
    """The copies of one look, of which the largest are removed where there is no room for all."""

    def __init__(self, folder: str, most_bytes: int) -> None:
        self._prefix = os.path.join(folder, f"dump-{secrets.token_hex(8)}-")
        self._left_bytes = most_bytes
        self._largest: list[tuple[int, str]] = []  # a heap, with negative sizes
        self._sizes: dict[str, int] = {}
        self._count = 0

    def write(self, blocks: Iterable[bytes]) -> str:
        """Write a new file, and return its path. Raises `OSError`; then it is gone."""
        path = self._next_path()
        with new_file(path) as file:
            file.writelines(blocks)
        self._sizes[path] = 0
        return path

    def _next_path(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count}"

    def keep(self, path: str, size_bytes: int) -> None:
        """Keep a file that is complete; the largest go if there are too many bytes."""
        self._sizes[path] = size_bytes
        self._left_bytes -= size_bytes
        heapq.heappush(self._largest, (-size_bytes, path))
        while self._left_bytes < 0:
            self.remove(heapq.heappop(self._largest)[1])

    def holds(self, path: str) -> bool:
        return path in self._sizes

    def remove(self, path: str) -> None:
        size_bytes = self._sizes.pop(path, None)
        if size_bytes is not None:
            self._left_bytes += size_bytes
            with suppress(OSError):
                os.unlink(path)

    def link(self, path: str, size_bytes: int) -> str:
        """Return the path of another name for a file that is kept. Raises `OSError`."""
        other = self._next_path()
        os.link(path, other)
        self.keep(other, size_bytes)
        return other

    def remove_others(self, wanted: Collection[str]) -> None:
        for path in self._sizes.keys() - set(wanted):
            self.remove(path)


class _ArchiveLook:
    """Compares the members of one archive. Of two members of one name the later one counts.

    `sources` are files that hard links name, whose content is kept until the end. `lacking` are those that would have
    been needed as such.
    """

    def __init__(
        self, request: LookRequest, copies: _CopyFolder, check: Callable[[], None], sources: Collection[str]
    ) -> None:
        self.copies = copies
        self.lacking: set[str] = set()
        self._not_kept = ""
        self._request = request
        self._check = check
        self._sources = sources
        self._pruned_names = frozenset(request.pruned_names)
        self._found: dict[str, SeenEntry] = {}
        self._beyond: dict[str, SeenEntry] = {}  # sources that are no part of the outcome
        self._new_count = self._new_bytes = 0
        self._pruned: dict[str, None] = {}
        self._unlisted = 0
        self._is_full = False  # no more new paths are listed
        self._longest = max(map(len, request.items), default=0)

    def add(self, member: Member, content: Iterable[bytes]) -> None:
        """Compare the next member."""
        path = inner_path(member.name)
        if not path:
            self._unlisted += path is None and self._request.find_new
            return
        kind = _KINDS[member.kind]
        is_new = self._request.find_new and not self._is_full
        self._unlisted += self._request.find_new and self._is_full and path not in self._request.items
        for folder in _parents(path):  # some archives have no entries for directories
            if not is_new and len(folder) > self._longest:
                break  # no one asks for what is so deep
            is_new = is_new and not self._is_pruned(folder, Kind.DIRECTORY)
            if folder not in self._found:
                self._add(folder, SeenEntry(Kind.DIRECTORY, 0o755), member, (), is_new)
        is_new = is_new and not self._is_pruned(path, kind)
        target = member.target if kind is Kind.SYMLINK else ""
        size_bytes = member.size_bytes if kind is Kind.FILE else 0
        entry = SeenEntry(kind, member.mode, _seconds(member.mtime_s), size_bytes, target)
        self._add(path, entry, member, content, is_new)

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
            elif entry is ABSENT and item.missing is Missing.AS_WANTED:
                continue
            elif any(same(entry, version) for version in item.versions):
                if item.action is LookAction.REMOVE:
                    failed[path] = _NO_PROGRAMS
            elif item.versions or entry is not ABSENT:
                differing[path] = self._with_copy(entry)
        new = {path: self._with_copy(entry) for path, entry in self._found.items()}
        self.copies.remove_others([entry.copy for entry in (*differing.values(), *new.values())])
        return LookResult(
            differing,
            new,
            tuple(self._pruned),
            tuple(removed),
            failed=failed,
            missing=missing,
            blocked=blocked,
            kinds_only=True,
            unlisted=self._unlisted,
            not_kept=self._not_kept,
        )

    def _with_copy(self, entry: SeenEntry) -> SeenEntry:
        return entry if self.copies.holds(entry.copy) else replace(entry, copy="")

    def _add(self, path: str, entry: SeenEntry, member: Member, content: Iterable[bytes], is_new: bool) -> None:
        item = self._request.items.get(path)
        is_asked = item is not None or is_new
        if not is_asked and path not in self._sources:
            return
        entries = self._found if is_asked else self._beyond
        before = entries.get(path)
        if before is not None:
            self.copies.remove(before.copy)
        elif item is None and is_asked:
            self._new_bytes += len(path)
            if self._new_count >= MOST_NEW or self._new_bytes > MOST_PATH_BYTES:
                self._unlisted, self._is_full = self._unlisted + 1, True
                return
            self._new_count += 1
        if entry.kind is Kind.FILE:
            if member.kind is MemberKind.HARD_LINK:
                entry = self._linked(entry, item, inner_path(member.target) or "")
            else:
                entry = self._read(path, entry, item, content)
        entries[path] = entry

    def _is_pruned(self, path: str, kind: Kind) -> bool:
        """Return True, and note it, for a path that is not listed, nor what is in it; all above it is listed."""
        name = path[path.rfind("/") + 1 :]
        is_pruned = is_in_repository(name) or (kind is Kind.DIRECTORY and name in self._pruned_names)
        if is_pruned and path not in self._pruned and len(self._pruned) < MOST_NEW:
            self._new_bytes += len(path)
            if self._new_bytes <= MOST_PATH_BYTES:
                self._pruned[path] = None
        return is_pruned

    def _read(self, path: str, entry: SeenEntry, item: LookItem | None, content: Iterable[bytes]) -> SeenEntry:
        """Return a file's entry with its digest, and its copy if one is wanted and can be kept."""
        sha256 = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for block in content:
                self._check()
                sha256.update(block)
                yield block

        blocks, small, copy = hashed(), [], ""
        may_be_wanted = item is None or item.action is LookAction.FETCH or path in self._sources
        may_be_kept = may_be_wanted and entry.size_bytes <= self._request.most_copied_bytes
        if may_be_kept and entry.size_bytes <= _MOST_IN_MEMORY:
            small = list(blocks)
        elif may_be_kept:
            copy = self._written(blocks)
        deque(blocks, maxlen=0)
        entry = replace(entry, digest=sha256.digest())
        if not may_be_kept or not (path in self._sources or self._is_fetched(entry, item)):
            self.copies.remove(copy)
            return entry
        if entry.size_bytes <= _MOST_IN_MEMORY:
            copy = self._written(small)
        if copy:
            self.copies.keep(copy, entry.size_bytes)
        return replace(entry, copy=copy)

    def _written(self, blocks: Iterable[bytes]) -> str:
        """Return the path of a new copy, an empty one if it cannot be kept."""
        try:
            return self.copies.write(blocks)
        except OSError as failure:
            self._not_kept = unwritable(failure).message
            return ""

    def _linked(self, entry: SeenEntry, item: LookItem | None, target: str) -> SeenEntry:
        """Return the entry of another name for a file that came before."""
        source = self._found.get(target) or self._beyond.get(target)
        if source is None or source.kind is not Kind.FILE:
            if target:
                self.lacking.add(target)
            return replace(entry, kind=Kind.UNREAD)
        entry = replace(source, copy="")
        if not self._is_fetched(entry, item):
            return entry
        if not source.copy:
            self.lacking.add(target)
        elif self.copies.holds(source.copy):
            try:
                return replace(entry, copy=self.copies.link(source.copy, source.size_bytes))
            except OSError as failure:
                self._not_kept = unwritable(failure).message
        return entry

    @staticmethod
    def _is_fetched(entry: SeenEntry, item: LookItem | None) -> bool:
        return item is None or (
            item.action is LookAction.FETCH and not any(same(entry, version) for version in item.versions)
        )


def _parents(path: str) -> Iterator[str]:
    """Yield the directories above a path, the highest first."""
    place = path.find("/")
    while place >= 0:
        yield path[:place]
        place = path.find("/", place + 1)


def _seconds(mtime_s: float) -> int:
    try:
        return int(mtime_s)
    except (ValueError, OverflowError):
        return 0
