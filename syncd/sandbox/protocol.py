"""The request to the program in the sandbox, and its report, of which nothing is trusted.

Both are JSON objects with a key for each verb (`program` tells what they do). Paths are sent as one text, and apart
from it, which compresses best, 16 bytes of each digest: 5,000 files take some 100 KB in the archive of an execution,
50,000 some 1 MB, most of that the digests. The report of a look has one outcome for each path of the request, run after
run of equal ones.
"""

from __future__ import annotations

import base64
import sys
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Meta, Struct

from syncd.core.text import one_line
from syncd.model.entry import EXECUTABLE, Entry, Kind, SeenEntry, arrived_digest
from syncd.model.git_names import REPOSITORY, is_in_repository
from syncd.sandbox.look_request import LookAction, LookRequest, LookResult, Mark, Obstacle

_DIGEST_BYTES = 16
_OF_NAMES = sys.getfilesystemencoding()  # of this machine; it stays the same while a process runs
_MOST_VERSIONS = 70
_LONGEST_PATH = 1 << 16
# More new paths are counted, not listed: an agent may have built something large.
MOST_NEW = 100_000
MOST_PATH_BYTES = 32 << 20  # of all new paths, with the targets of links
# The longest report: for each path of the request, for each new one beside its name, and for all targets of links and
# names in changed folders. An outcome and a row have some 130 bytes.
_ITEM_BYTES, _NEW_BYTES, _OTHER_BYTES = 512, 256, 4 << 20
_LONGEST_REPORT = 256 << 20
_TEXT_BYTES = 64  # to so many, of the most that a report may have, comes one text in it
_MOST_NAMES = 20_000  # in folders that have changed since an earlier look
MOST_BLOCKED = 5_000  # so that the report fits into a log; the next look finds the others

# Of the agent's commits. More are left to what is not committed.
MOST_COMMITS = 1_000
MOST_COMMITTED_PATHS = 100_000
MOST_COMMITTED_BYTES = 2 << 30  # of what they say and changed, with the contents
_MOST_TOLD_BYTES = 64 << 20
_MOST_FILE_BYTES = MOST_COMMITTED_BYTES + (64 << 20)  # each content has a line of its own

Part = TypeVar("Part")
Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Text = Annotated[str, Meta(max_length=_LONGEST_PATH)]
_Pair = Annotated[str, Meta(pattern=r"\A[0-9a-f]{40}(?: [0-9a-f]{40})?\Z")]
_File = tuple[Annotated[int, Meta(ge=0, le=_MOST_FILE_BYTES)], Annotated[str, Meta(pattern=r"\A(?:[0-9a-f]{64})?\Z")]]


class _ReportRow(Struct, array_like=True, forbid_unknown_fields=True):
    """One entry in the report; `copy` is the number of its copy."""

    kind: Kind
    mode: Annotated[int, Meta(ge=0, le=0o777)]
    size_bytes: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    mtime_s: Annotated[int, Meta(ge=-(1 << 62), le=1 << 62)]
    digest: Annotated[bytes, Meta(max_length=32)]
    copy: Annotated[int, Meta(ge=-1, le=1 << 40)]
    unstable: bool
    target: Text = ""

    def seen(self) -> SeenEntry:
        """Return the entry, whose copy is the file's name in the archive. Raises `ValueError`."""
        if len(self.digest) not in (0, 32):
            raise ValueError("a digest is invalid")
        if self.copy >= 0 and (self.kind is not Kind.FILE or not self.digest or self.unstable):
            raise ValueError("a copy is of no file")
        return SeenEntry(
            self.kind,
            self.mode,
            self.mtime_s,
            self.size_bytes,
            from_remote(self.target) if self.kind is Kind.SYMLINK else "",
            digest=self.digest,
            copy=f"copies/{self.copy}" if self.copy >= 0 else "",
            unstable=self.unstable,
        )


# The outcome of one path of the request: it does not differ (or exists, or nothing is in its way), it differs, is
# removed, kept, failed, missing, blocked, or unseen.
_Outcome = Literal["=", "d", "r", "k", "f", "m", "b", "u"]
_POSSIBLE = {
    LookAction.COMPARE: "=du",
    LookAction.FETCH: "=du",
    LookAction.REMOVE: "drkf",
    LookAction.EXISTS: "=m",
    LookAction.PLACE: "=bu",
    LookAction.COMMITS: "=bu",
}


class LookReport(Struct, forbid_unknown_fields=True):
    """The report of a look: each differing path has a row, each failed one a reason, each blocked one a place.

    `unsearched` counts the directories that were not searched in time.
    """

    outcomes: list[tuple[_Outcome, Count]]
    differing: list[_ReportRow]
    failed: list[Text]
    blocked: Annotated[list[tuple[Count, Obstacle]], Meta(max_length=MOST_BLOCKED)]
    new: Annotated[dict[Text, _ReportRow], Meta(max_length=MOST_NEW)]
    pruned: Annotated[list[Text], Meta(max_length=MOST_NEW)]
    unlisted: Count
    unsearched: Count
    mark: Mark | None
    names: Annotated[dict[Text, list[Text]], Meta(max_length=MOST_NEW)]


class RepositoryState(StrEnum):
    """The outcome of a request about the repository there."""

    DONE = "done"
    LOST = "lost"  # there is none, or it is not as syncd left it, so that the request must name all paths
    FOREIGN = "foreign"  # someone else made it
    FAILED = "failed"


class CommitReport(Struct, frozen=True, forbid_unknown_fields=True):
    """The report of a repository that follows: `home` is the commit of what was sent; else `why` has the reason."""

    state: RepositoryState
    why: Text = ""
    home: Annotated[str, Meta(pattern=r"\A(?:[0-9a-f]{40})?\Z")] = ""


class SandboxCommits(Struct, frozen=True, forbid_unknown_fields=True):
    """The agent's commits as the sandbox reports them; `why` is empty if it does.

    `commits` are the ids, the oldest first, each with that of its first parent after a space, if it has one. `unlisted`
    counts the newer ones, which are too many to be read. `file` are length and SHA-256 of the file there that begins,
    for `told_bytes`, with what git tells of them. `others` counts commits of other branches, or stashed ones, which
    stay there.
    """

    state: RepositoryState
    why: Text = ""
    commits: Annotated[tuple[_Pair, ...], Meta(max_length=MOST_COMMITS)] = ()
    unlisted: Count = 0
    file: _File = (0, "")
    told_bytes: Annotated[int, Meta(ge=0, le=_MOST_TOLD_BYTES)] = 0
    others: Count = 0


class RunReport(Struct, frozen=True, forbid_unknown_fields=True):
    """The report of a command: it ended by itself, or when its time was over, or another one still runs there.

    `missing` counts the paths of the sample that are not there any more.
    """

    state: Literal["ended", "overdue", "busy"]
    exit_code: Annotated[int, Meta(ge=0, le=255)] = 0
    seconds: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    missing: Count = 0


class Report(Struct, forbid_unknown_fields=True):
    """The report; `ended_s` are the seconds since 1970 by the sandbox's clock."""

    ended_s: Annotated[float, Meta(ge=0, le=1 << 40)]
    look: LookReport | None = None
    run: RunReport | None = None
    commit: CommitReport | None = None
    log: SandboxCommits | None = None


class Bounds(Struct, frozen=True):
    """The most bytes of an honest report, and the most bytes of files that the program left beside it."""

    most_bytes: int
    most_copied_bytes: int = 0

    @classmethod
    def of_look(cls, request: LookRequest) -> Bounds:
        """Return those for the report of such a look."""
        listed = MOST_NEW * _NEW_BYTES + MOST_PATH_BYTES if request.find_new else 0
        most_bytes = min(_LONGEST_REPORT, len(request.items) * _ITEM_BYTES + listed + _OTHER_BYTES)
        return cls(most_bytes, request.most_copied_bytes)


SHORT_BOUNDS = Bounds(1 << 10)
# Of a report about the repository: a thousand commits and a hundred branches are some 200 KB.
REPOSITORY_BOUNDS = Bounds(2 << 20, _MOST_FILE_BYTES)


def decoded(content: bytes, bounds: Bounds) -> Report:
    """Return a report that is as long as it may be. Raises `ValueError` for what no honest program says."""
    # Each value of a list has a text, and the list is in memory before its length is checked.
    if content.count(b'"') * _TEXT_BYTES > 2 * bounds.most_bytes:
        raise ValueError("it says more than was asked for")
    return msgspec.json.decode(content, type=Report)


def told(part: Part | None) -> Part:
    """Return the part of a report that tells of what was asked. Raises `ValueError` if it is lacking."""
    if part is None:
        raise ValueError("it does not tell of what was asked")
    return part


def look_values(request: LookRequest, within_s: float, not_after_s: float) -> dict[str, Any]:
    """Return the request of a look as JSON values.

    What the program does ends that long after it began, and nothing is removed after that second of the sandbox's
    clock.
    """
    items = ((item.action.value, path, item.versions[:_MOST_VERSIONS]) for path, item in request.each())
    return {
        **items_of(items),
        "find_new": request.find_new,
        "pruned": [to_remote(name) for name in request.pruned_names],
        "repository": REPOSITORY,
        "most_new": MOST_NEW,
        "most_blocked": MOST_BLOCKED,
        "most_names": _MOST_NAMES,
        "most_copied_bytes": request.most_copied_bytes,
        "within_s": within_s,
        "not_after_s": not_after_s,
        "since": request.since,
    }


def items_of(items: Iterable[tuple[str, str, Sequence[Entry]]]) -> dict[str, Any]:
    """Return letters and paths, each with its versions, as JSON values: one text, and the digests of all files."""
    # Of a million files, a list of texts would take much more memory than one text.
    text, digests = bytearray(), bytearray()
    for letter, path, versions in items:
        text += f"\0\0{letter}{to_remote(path)}".encode("utf-8", "surrogatepass")
        for entry in versions:
            kind, fact = _letter(entry), ""
            if kind in "fx":
                fact = str(entry.size_bytes)
                digests += arrived_digest(entry)[:_DIGEST_BYTES]
            elif entry.kind is Kind.SYMLINK:
                fact = to_remote(entry.target)
            text += f"\0{kind}{fact}".encode("utf-8", "surrogatepass")
    return {"items": text[2:].decode("utf-8", "surrogatepass"), "digests": base64.b64encode(digests).decode()}


def _letter(entry: Entry) -> str:
    if entry.kind is not Kind.FILE:
        return entry.kind or "n"
    if len(arrived_digest(entry)) < _DIGEST_BYTES:
        return "u"  # no content equals an unknown one
    return "x" if entry.mode & EXECUTABLE else "f"


def look_result(answer: Report, request: LookRequest) -> LookResult:
    """Return what a look found. Copies are named as in the archive. Raises `ValueError` as `decoded` does."""
    report = told(answer.look)
    if sum(count for _, count in report.outcomes) != len(request.items):
        raise ValueError("it has another number of outcomes")
    named: defaultdict[str, list[str]] = defaultdict(list)
    paths, removals = iter(request.items), 0
    for outcome, count in report.outcomes:
        if outcome == "=":  # mostly nearly all, and no removal
            deque(islice(paths, count), maxlen=0)
            continue
        for path in islice(paths, count):
            action = request.items[path].action
            if outcome not in _POSSIBLE[action]:
                raise ValueError("it says what was not asked for")
            removals += action is LookAction.REMOVE
            named[outcome].append(path)
    if removals != len(request.with_action(LookAction.REMOVE)):
        raise ValueError("a removal has no outcome")
    is_whole = report.new or report.pruned or report.unlisted or report.unsearched or report.mark
    if (is_whole and not request.find_new) or (report.names and request.since is None):
        raise ValueError("it lists what was not asked for")
    differing = {path: row.seen() for path, row in zip(named["d"], report.differing, strict=True)}
    new = {_path(text): row.seen() for text, row in report.new.items()}
    if any(path in request.items or entry.kind is Kind.ABSENT for path, entry in new.items()):
        raise ValueError("a new path is none")
    if any(entry.copy and request.items[path].action is not LookAction.FETCH for path, entry in differing.items()):
        raise ValueError("a copy was not asked for")
    copied = [entry for entry in (*differing.values(), *new.values()) if entry.copy]
    if len({entry.copy for entry in copied}) < len(copied):
        raise ValueError("one copy is of two files")
    if sum(entry.size_bytes for entry in copied) > request.most_copied_bytes:
        raise ValueError("more was copied than was asked for")
    unseen = dict.fromkeys(named["u"], SeenEntry(Kind.UNREAD))
    reasons = (one_line(reason, 120) for reason in report.failed)
    return LookResult(
        differing=differing | unseen,
        new=new,
        pruned=tuple(map(_pruned, report.pruned)),
        removed=tuple(named["r"]),
        holding_more=tuple(named["k"]),
        failed=dict(zip(named["f"], reasons, strict=True)),
        missing=len(named["m"]),
        blocked=_blocked(zip(named["b"], report.blocked, strict=True), request),
        unlisted=report.unlisted,
        unseen=len(unseen) + report.unsearched,
        mark=report.mark,
        names={_pruned(folder): frozenset(map(from_remote, names)) for folder, names in report.names.items()},
    )


def _blocked(rows: Iterable[tuple[str, tuple[int, Obstacle]]], request: LookRequest) -> dict[str, Obstacle]:
    """Return the obstacles by their places, each so many levels above a path of the request. Raises `ValueError`."""
    blocked: dict[str, Obstacle] = {}
    for path, (levels, obstacle) in rows:
        place = path.rsplit("/", levels)[0] if levels <= path.count("/") else ""
        is_asked = obstacle is not Obstacle.COMMITS or request.items[path].action is LookAction.COMMITS
        if not is_asked or not place or place in blocked:
            raise ValueError("a path is not blocked in such a way")
        blocked[place] = obstacle
    return blocked


def _pruned(text: str) -> str:
    """Return a path that was not entered: the workspace itself ("."), a repository, or another path inside of it."""
    path = from_remote(text)
    folder, _, name = path.rpartition("/")
    if path != "." and not is_in_repository(name):
        return _path(text)
    if folder:
        _path(folder)
    return path


def _path(text: str) -> str:
    """Return a path inside of the workspace, and of no repository. Raises `ValueError`."""
    path = from_remote(text)
    if leads_outside(path) or is_in_repository(path):
        raise ValueError("a path leads outside")
    return path


def leads_outside(path: str) -> bool:
    """Return True for a path that is not one inside of the workspace."""
    return any(name in ("", ".", "..") for name in path.split("/"))


def to_remote(name: str) -> str:
    """Return a name as UTF-8, since the sandbox does not know this machine's encoding of names."""
    return name.encode(_OF_NAMES, "surrogateescape").decode("utf-8", "surrogateescape")


def from_remote(text: str) -> str:
    """Return a name of a report's in this machine's encoding of names. Raises `ValueError` for no name."""
    name = unquote_to_bytes(text).decode(_OF_NAMES, "surrogateescape")
    if "\0" in name:
        raise ValueError("a name has characters that no name has")
    return name
