"""The report of the program that reads the agent's commits in the sandbox, of which nothing is trusted."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from syncd.sandbox.look_encoding import (
    Count,
    Digest,
    InvalidReport,
    Mode,
    Recoded,
    Size,
    Text,
    converted,
    digest_of,
    leads_outside,
    recoded,
)
from syncd.sandbox.look_request import RemoteEntry, RemoteKind

# More are left to what is not committed.
MOST_COMMITS = 1_000
MOST_PATHS = 100_000
_KINDS = (RemoteKind.ABSENT, RemoteKind.FILE, RemoteKind.SYMLINK, RemoteKind.OTHER, RemoteKind.UNREADABLE)

_Id = Annotated[str, Meta(pattern=r"\A(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")]
_Seconds = Annotated[int, Meta(ge=-(1 << 62), le=1 << 62)]
_Message = Annotated[str, Meta(max_length=1 << 17)]


class SandboxCommit(Struct, frozen=True):
    """One commit of the agent's. `changes` are the paths that differ from its first parent, ABSENT for a deleted one.

    `refused` are paths that lead out of the workspace, as nobody has to trust a tree. `unlisted` counts the paths
    beyond the most that are read.
    """

    id: str
    author: str
    email: str
    seconds: int
    zone: str
    message: bytes
    changes: Mapping[str, RemoteEntry]
    refused: tuple[str, ...] = ()
    unlisted: int = 0


class OtherBranch(Struct, frozen=True):
    """A branch whose commits stay in the sandbox, and their number."""

    name: str
    commits: int


class SandboxCommits(Struct, frozen=True):
    """The agent's commits, the oldest first.

    `absence` says why there are none to read, `failure` why they cannot be read. `branch` is the branch that is checked
    out, empty for a detached HEAD. `under_way` are operations such as a rebase. `unlisted` counts the commits beyond
    the most that are read, the newest ones.
    """

    commits: tuple[SandboxCommit, ...] = ()
    branch: str = ""
    under_way: tuple[str, ...] = ()
    stashes: int = 0
    branches: tuple[OtherBranch, ...] = ()
    more_branches: int = 0
    unlisted: int = 0
    absence: str = ""
    failure: str = ""


class CommitsReport(Struct):
    """The report. `copies` has the number of the copy of each path's content, by the commit's index and the path."""

    found: SandboxCommits
    copies: dict[tuple[int, str], int] = field(default_factory=dict)

    def expected(self) -> dict[int, RemoteEntry]:
        """Return one of the entries with each copy."""
        commits = self.found.commits
        return {number: commits[index].changes[path] for (index, path), number in self.copies.items()}


class _CommitRow(Struct, array_like=True, forbid_unknown_fields=True):
    id: _Id
    author: Text
    email: Text
    seconds: _Seconds
    zone: Annotated[str, Meta(max_length=5)]
    message: _Message
    unlisted: Count


class _ChangeRow(Struct, array_like=True, forbid_unknown_fields=True):
    commit: Count
    path: Text
    kind: RemoteKind
    mode: Mode
    size_bytes: Size
    digest: Digest
    copy: Annotated[int, Meta(ge=-1, le=1 << 40)]
    target: Text = ""


class _BranchRow(Struct, array_like=True, forbid_unknown_fields=True):
    name: Text
    commits: Count


class _State(Struct, array_like=True, forbid_unknown_fields=True):
    branch: Text
    under_way: Annotated[list[Text], Meta(max_length=10)]
    absence: Text
    failure: Text


def commits_of(rows: Iterable[list[Any]], from_remote: Recoded) -> CommitsReport:
    """Return the report with these rows, of which the last is `done`. Raises `InvalidReport`."""
    commits: list[_CommitRow] = []
    changes: list[_ChangeRow] = []
    branches: list[_BranchRow] = []
    ended: tuple[list[int], _State] | None = None
    for row in rows:
        if ended is not None:
            raise InvalidReport("it goes on after its end")
        match row:
            case ["commits", list(items)]:
                commits += converted(items, list[_CommitRow])
            case ["changes", list(items)]:
                changes += converted(items, list[_ChangeRow])
            case ["branches", list(items)]:
                branches += converted(items, list[_BranchRow])
            case ["done", list(numbers), list(state)]:
                ended = converted(numbers, list[Count]), converted(state, _State)
            case _:
                raise InvalidReport("a row has another form")
    if ended is None:
        raise InvalidReport("its end is missing")
    counts, state_row = ended
    if len(counts) != 6 or counts[:3] != [len(commits), len(changes), len(branches)]:
        raise InvalidReport("rows are missing")
    if len(commits) > MOST_COMMITS or len(changes) > MOST_PATHS:
        raise InvalidReport("it lists too much")
    by_commit, refused, copies = _changes(changes, len(commits), from_remote)
    found = SandboxCommits(
        commits=tuple(
            SandboxCommit(
                id=row.id,
                author=recoded(row.author, from_remote),
                email=recoded(row.email, from_remote),
                seconds=row.seconds,
                zone=row.zone,
                message=_message(row.message),
                changes=by_commit[index],
                refused=tuple(refused[index]),
                unlisted=row.unlisted,
            )
            for index, row in enumerate(commits)
        ),
        branch=recoded(state_row.branch, from_remote),
        under_way=tuple(state_row.under_way),
        stashes=counts[4],
        branches=tuple(OtherBranch(recoded(row.name, from_remote), row.commits) for row in branches),
        more_branches=counts[5],
        unlisted=counts[3],
        absence=state_row.absence,
        failure=state_row.failure,
    )
    return CommitsReport(found, copies)


def _changes(
    rows: list[_ChangeRow], commits: int, from_remote: Recoded
) -> tuple[list[dict[str, RemoteEntry]], list[list[str]], dict[tuple[int, str], int]]:
    """Return by commit what is at each path, and the paths that lead outside; and the numbers of the copies."""
    found: list[dict[str, RemoteEntry]] = [{} for _ in range(commits)]
    refused: list[list[str]] = [[] for _ in range(commits)]
    copies: dict[tuple[int, str], int] = {}
    contents: dict[int, tuple[int, bytes]] = {}
    for row in rows:
        if row.commit >= commits:
            raise InvalidReport("an index is out of range")
        digest = digest_of(row.digest)
        is_file = row.kind is RemoteKind.FILE
        if row.kind not in _KINDS or (row.copy >= 0 and not (is_file and digest)):
            raise InvalidReport("a copy is of no file")
        if row.copy >= 0 and contents.setdefault(row.copy, (row.size_bytes, digest)) != (row.size_bytes, digest):
            raise InvalidReport("a copy has two contents")
        path = recoded(row.path, from_remote)
        target = recoded(row.target, from_remote) if row.kind is RemoteKind.SYMLINK else ""
        if leads_outside(path):
            refused[row.commit].append(path)
            continue
        size_bytes = row.size_bytes if is_file else 0
        found[row.commit][path] = RemoteEntry(row.kind, row.mode if is_file else 0, size_bytes, 0, target, digest)
        copies.pop((row.commit, path), None)
        if row.copy >= 0:
            copies[row.commit, path] = row.copy
    if contents.keys() != set(range(len(contents))):
        raise InvalidReport("the numbers of its copies are invalid")
    return found, refused, copies


def _message(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise InvalidReport("a message is invalid") from None
