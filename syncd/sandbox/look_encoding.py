"""The list that a look sends into the sandbox, and the report that comes back, of which nothing is trusted.

The list is in columns, which compress best, and has 16 bytes of each digest: 5,000 files take some 100 KB in the
archive of an execution, 50,000 some 0.95 MB, most of that the digests.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from syncd.model.entry import (
    Entry,
    Kind,
    SeenEntry,
    arrived_digest,
)
from syncd.sandbox.look_request import LookAction, LookRequest, Missing, Obstacle

_DIGEST_BYTES = 16
_EXECUTABLE = 0o100
_MOST_VERSIONS = 70  # a count is one character from "0" on
_LONGEST_PATH = 1 << 16
_MAY_BE_UNSEEN = (LookAction.COMPARE, LookAction.FETCH, LookAction.PLACE, LookAction.COMMITS)
# More new paths are counted, not listed: an agent may have built something large.
MOST_NEW = 100_000
MOST_PATH_BYTES = 32 << 20  # of all new paths
MOST_BLOCKED = 5_000  # so that the report fits into a log; the next look finds the others

Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Size = Annotated[int, Meta(ge=0, le=1 << 62)]
Mode = Annotated[int, Meta(ge=0, le=0o777)]
_Time = Annotated[int, Meta(ge=-(1 << 62), le=1 << 62)]
Text = Annotated[str, Meta(max_length=_LONGEST_PATH)]
Digest = Annotated[str, Meta(max_length=44)]
Shape = TypeVar("Shape")
# A path in this machine's encoding of names as UTF-8 with escaped bytes, or the other way round.
Recoded = Callable[[str], str]


class _ReportRow(Struct, array_like=True, forbid_unknown_fields=True):
    """One entry in the report. `key` is the index of its path in the request, or the path of a new one."""

    key: Count | Text
    kind: Kind
    mode: Mode
    size_bytes: Size
    mtime_s: _Time
    digest: Digest
    copy: Annotated[int, Meta(ge=-1, le=1 << 40)]
    unstable: Annotated[int, Meta(ge=0, le=1)]
    target: Text = ""


class InvalidReport(Exception):
    """The report is incomplete, or says what no honest program says; the message says which."""


class FoundEntry(Struct, frozen=True):
    """One row of the report. `copy` is the number of the copy, None if none was made."""

    entry: SeenEntry
    copy: int | None


class LookReport(Struct):
    """The report of one look, checked against its request."""

    differing: dict[str, FoundEntry] = field(default_factory=dict)
    new: dict[str, FoundEntry] = field(default_factory=dict)
    pruned: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, Obstacle] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)  # of the request
    missing: int = 0
    unlisted: int = 0
    unseen_count: int = 0  # of new ones too
    ended_s: int = 0  # by the sandbox's clock, in seconds since 1970

    @property
    def copies(self) -> dict[int, FoundEntry]:
        """The rows with a copy, by its number."""
        rows = [*self.differing.values(), *self.new.values()]
        return {found.copy: found for found in rows if found.copy is not None}


def encoded(request: LookRequest, within_s: float, to_remote: Recoded, not_after_s: float = 0.0) -> dict[str, Any]:
    """Return the list as JSON values.

    What the program does ends that long after it began, and nothing is removed after that second of the sandbox's
    clock; 0: not known.
    """
    actions: list[str] = []

    def versions() -> Iterator[tuple[str, Sequence[Entry]]]:
        for path, item in request.each():
            letter = item.action.value
            actions.append(letter.upper() if item.missing is Missing.AS_WANTED else letter)
            yield path, item.versions[:_MOST_VERSIONS] if item.action is not LookAction.EXISTS else ()

    return {
        **encoded_versions(versions(), to_remote),
        "actions": "".join(actions),
        "find_new": request.find_new,
        "pruned": [to_remote(name) for name in request.pruned_names],
        "most_new": MOST_NEW,
        "most_blocked": MOST_BLOCKED,
        "most_copied_bytes": request.most_copied_bytes,
        "within_s": within_s,
        "not_after_s": not_after_s,
    }


def encoded_versions(versions: Iterable[tuple[str, Sequence[Entry]]], to_remote: Recoded) -> dict[str, Any]:
    """Return paths, each with its versions, as JSON values: a column of each fact."""
    # Of a million files, a list of texts would take much more memory than one text.
    paths, sizes, digests = bytearray(), bytearray(), bytearray()
    counts: list[str] = []
    kinds: list[str] = []
    targets: list[str] = []
    for path, entries in versions:
        paths += to_remote(path).encode("utf-8", "surrogatepass") + b"\0"
        counts.append(chr(ord("0") + len(entries)))
        for entry in entries:
            kind = _letter(entry)
            kinds.append(kind)
            if entry.kind is Kind.SYMLINK:
                targets.append(to_remote(entry.target))
            elif kind in "fx":
                sizes += b"%d " % entry.size_bytes
                digests += arrived_digest(entry)[:_DIGEST_BYTES]
    return {
        "paths": paths[:-1].decode("utf-8", "surrogatepass"),
        "counts": "".join(counts),
        "kinds": "".join(kinds),
        "sizes": sizes.decode(),
        "digests": base64.b64encode(digests).decode(),
        "targets": targets,
    }


def _letter(entry: Entry) -> str:
    if entry.kind is not Kind.FILE:
        return entry.kind
    if len(arrived_digest(entry)) < _DIGEST_BYTES:
        return "u"  # no content equals an unknown one
    return "x" if entry.mode & _EXECUTABLE else "f"


def report_of(rows: Iterable[list[Any]], request: LookRequest, from_remote: Recoded) -> LookReport:
    """Return the report with these rows. Raises `InvalidReport`."""
    reading = _ReportReader(request, from_remote)
    counts: list[int] | None = None
    for row in rows:
        if counts is not None:
            raise InvalidReport("it goes on after its end")
        match row:
            case ["done", list(numbers)]:
                counts = converted(numbers, list[Count])
            case [str(label), list(items)]:
                reading.add(label, items)
            case _:
                raise InvalidReport("a row has another form")
    if counts is None:
        raise InvalidReport("its end is missing")
    reading.check(counts)
    return reading.report


class _ReportReader:
    """Reads one report row by row."""

    def __init__(self, request: LookRequest, from_remote: Recoded) -> None:
        self.report = LookReport()
        self._request = request
        self._from_remote = from_remote
        self._named: set[str] = set()
        self._copies: set[int] = set()

    @cached_property
    def _paths(self) -> list[str]:
        return list(self._request.items)

    def add(self, label: str, items: list[Any]) -> None:
        """Add the items of one row. Raises `InvalidReport`."""
        match label:
            case "differing":
                for row in converted(items, list[_ReportRow]):
                    self._add_differing(row)
            case "new":
                for row in converted(items, list[_ReportRow]):
                    self._add_new(row)
            case "pruned":
                self.report.pruned += [self._pruned(path) for path in converted(items, list[Text])]
            case "removed":
                self.report.removed += self._to_remove(items)
            case "kept":
                self.report.kept += self._to_remove(items)
            case "failed":
                for index, reason in converted(items, list[tuple[Count, Text]]):
                    (path,) = self._to_remove([[index, index]])
                    self.report.failed[path] = reason
            case "blocked":
                for index, levels, obstacle in converted(items, list[tuple[Count, Count, Obstacle]]):
                    self._add_blocked(index, levels, obstacle)
            case "unseen":
                self.report.unseen += self._in_ranges(items, _MAY_BE_UNSEEN)
            case _:
                raise InvalidReport("a row has another form")

    def check(self, counts: list[int]) -> None:
        """Compare with the counts at the report's end. Raises `InvalidReport` if something is missing."""
        report = self.report
        lists = (report.differing, report.new, report.pruned, report.removed, report.kept, report.failed)
        if len(counts) != 11 or counts[:7] != [*map(len, lists), len(report.blocked)]:
            raise InvalidReport("rows are missing")
        report.missing, report.unlisted, report.ended_s, report.unseen_count = counts[7:]
        if report.unseen_count < len(report.unseen):
            raise InvalidReport("rows are missing")
        if report.missing > len(self._request.with_action(LookAction.EXISTS)):
            raise InvalidReport("more is missing than was asked for")
        if not self._named.issuperset(self._request.with_action(LookAction.REMOVE)):
            raise InvalidReport("a removal has no outcome")
        if not self._request.find_new and (report.new or report.pruned or report.unlisted):
            raise InvalidReport("it lists what was not asked for")
        if len(report.new) > MOST_NEW or len(report.blocked) > MOST_BLOCKED:
            raise InvalidReport("it lists too much")
        if self._copies != set(range(len(self._copies))):
            raise InvalidReport("the numbers of its copies are invalid")

    def _add_differing(self, row: _ReportRow) -> None:
        if not isinstance(row.key, int):
            raise InvalidReport("a value has another type")
        found = self._found(row)
        path = self._named_path(row.key)
        item = self._request.items[path]
        compared = item.action in (LookAction.COMPARE, LookAction.FETCH, LookAction.REMOVE)
        if not compared or (found.copy is not None and item.action is not LookAction.FETCH):
            raise InvalidReport("it answers what was not asked for")
        self.report.differing[path] = found

    def _add_new(self, row: _ReportRow) -> None:
        if not isinstance(row.key, str):
            raise InvalidReport("a value has another type")
        found = self._found(row)
        path = self._path(row.key)
        if path == "." or path in self._request.items or path in self.report.new or found.entry.kind is Kind.ABSENT:
            raise InvalidReport("a new path is none")
        self.report.new[path] = found

    def _add_blocked(self, index: int, levels: int, obstacle: Obstacle) -> None:
        """Add what blocks a path of the request, so many levels above it."""
        path = self._named_path(index)
        action = self._request.items[path].action
        allowed = (LookAction.COMMITS,) if obstacle is Obstacle.COMMITS else (LookAction.PLACE, LookAction.COMMITS)
        place = path.rsplit("/", levels)[0] if levels <= path.count("/") else ""
        if action not in allowed or not place or place in self.report.blocked:
            raise InvalidReport("a path is not blocked in such a way")
        self.report.blocked[place] = obstacle

    def _found(self, row: _ReportRow) -> FoundEntry:
        digest = digest_of(row.digest)
        copied = row.copy >= 0
        if copied and (row.kind is not Kind.FILE or not digest or row.unstable or row.copy in self._copies):
            raise InvalidReport("a copy is of no file")
        if copied:
            self._copies.add(row.copy)
        target = recoded(row.target, self._from_remote) if row.kind is Kind.SYMLINK else ""
        entry = SeenEntry(
            row.kind, row.mode, row.mtime_s, row.size_bytes, target, digest=digest, unstable=bool(row.unstable)
        )
        return FoundEntry(entry, row.copy if copied else None)

    def _to_remove(self, ranges: list[Any]) -> list[str]:
        return self._in_ranges(ranges, (LookAction.REMOVE,))

    def _in_ranges(self, ranges: list[Any], actions: Collection[LookAction]) -> list[str]:
        """Return the paths of ranges of indexes, which must have one of these actions."""
        paths: list[str] = []
        for first, last in converted(ranges, list[tuple[Count, Count]]):
            if not first <= last < len(self._paths):
                raise InvalidReport("an index is out of range")
            for index in range(first, last + 1):
                path = self._named_path(index)
                if self._request.items[path].action not in actions:
                    raise InvalidReport("it removed what it should not")
                paths.append(path)
        return paths

    def _named_path(self, index: int) -> str:
        """Return the path of an index, which has only one outcome."""
        if index >= len(self._paths):
            raise InvalidReport("an index is out of range")
        path = self._paths[index]
        if path in self._named:
            raise InvalidReport("a path has two outcomes")
        self._named.add(path)
        return path

    def _pruned(self, text: str) -> str:
        """Return a path that was not entered: the workspace itself ("."), a `.git`, or another one inside of it."""
        path = recoded(text, self._from_remote)
        if path == "." or path.lower() == ".git":
            return path
        folder, _, name = path.rpartition("/")
        if name.lower() == ".git":
            self._path(folder)
            return path
        return self._path(text)

    def _path(self, text: str) -> str:
        """Return a path inside of the workspace, and of no repository."""
        path = recoded(text, self._from_remote)
        if leads_outside(path) or any(name.lower() == ".git" for name in path.split("/")):
            raise InvalidReport("a path leads outside")
        return path


def recoded(text: str, from_remote: Recoded) -> str:
    """Return a name as this machine has it. Raises `InvalidReport` for one that cannot be."""
    try:
        name = from_remote(text)
    except ValueError:
        raise InvalidReport("a name has characters that no name has") from None
    if "\0" in name:
        raise InvalidReport("a name has characters that no name has")
    return name


def leads_outside(path: str) -> bool:
    """Return True for a path that is not one inside of the workspace."""
    return any(name in ("", ".", "..") for name in path.split("/"))


def converted(value: Any, shape: type[Shape]) -> Shape:
    """Return a value of the report as this shape. Raises `InvalidReport`."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError:
        raise InvalidReport("a value has another type") from None


def digest_of(text: str) -> bytes:
    """Return a digest of 32 bytes, or none. Raises `InvalidReport`."""
    try:
        digest = base64.b64decode(text, validate=True)
    except ValueError:
        raise InvalidReport("a digest is invalid") from None
    if len(digest) not in (0, 32):
        raise InvalidReport("a digest is invalid")
    return digest
