"""Keeps the results of a scan for each directory, so that the next scan lists only directories with changes.

A `TreeCache` holds the manifest of all entries, and one `DirRecord` for each directory, by path. Dropping a directory's
record drops those below it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct, field

from syncd.core.errors import SyncWarning
from syncd.model.directory import Entries, differing, read, rebuilt
from syncd.model.entry import Entry
from syncd.model.manifest import Manifest
from syncd.scan.file_reader import FileIdentity
from syncd.selection.selection import Rule, Scope


class DirIssues(Struct):
    """Details of a directory beyond its entries; few directories have any."""

    warnings: list[SyncWarning] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    links_to_check: list[str] = field(default_factory=list)  # they may lead outside through other links


class DirRecord(Struct):
    """A directory as it was listed. `outer` is its scope without its own ignore files, whose contents are `rules`."""

    identity: FileIdentity
    outer: Scope
    scope: Scope
    rules: Mapping[str, bytes]
    directories: list[str] = field(default_factory=list)
    issues: DirIssues | None = None
    excluded: Counter[str] | None = None  # how many paths, by the source of the rule

    def count_excluded(self, rule: Rule) -> None:
        """Count one more path that this rule excludes; rule files with one name are one source."""
        if self.excluded is None:
            self.excluded = Counter()
        self.excluded[rule.source.rpartition("/")[2]] += 1

    def own_issues(self) -> DirIssues:
        """Return the details, and create them if there are none."""
        if self.issues is None:
            self.issues = DirIssues()
        return self.issues


class TreeCache:
    """The records of one workspace's directories."""

    def __init__(self) -> None:
        self._records: dict[str, DirRecord] = {}
        self.issues: dict[str, DirIssues] = {}  # of the directories that have any
        self.manifest = Manifest()
        self.excluded: Counter[str] = Counter()  # of all directories; numbers may be 0

    def get(self, path: str) -> DirRecord | None:
        return self._records.get(path)

    def put(self, path: str, record: DirRecord) -> None:
        old = self._records.get(path)
        self._records[path] = record
        if old is not record:
            self.excluded.subtract(None if old is None else old.excluded)
            self.excluded.update(record.excluded)
        if record.issues is not None:
            self.issues[path] = record.issues
        else:
            self.issues.pop(path, None)

    def drop(self, path: str) -> None:
        """Remove the records of a directory and of all below it."""
        dropped = [path]
        while dropped:
            path = dropped.pop()
            record = self._records.pop(path, None)
            self.issues.pop(path, None)
            if record is not None:
                self.excluded.subtract(record.excluded)
                dropped += record.directories

    def set_entries(self, entries: Mapping[str, Entry]) -> None:
        """Replace the entries of the paths that are still in the cache."""
        self.manifest.put((path, entry) for path, entry in entries.items() if path in self.manifest)

    def adopt(self, known: Manifest) -> None:
        """Replace the entries of the paths that are still in the cache; equal directories are those of `known`."""
        own = {}
        for path, mine, theirs in differing(self.manifest.top, known.top):
            if mine.own.texts == theirs.own.texts:  # the same names, which is nearly always so
                own[path] = theirs.own
            else:
                entries = read(theirs.own)
                own[path] = Entries({name: entries.get(name, entry) for name, entry in read(mine.own).items()})
        self.manifest = Manifest.of(rebuilt(self.manifest.top, own, like=known.top))
