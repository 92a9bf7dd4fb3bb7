"""The request to the program `repository_in_sandbox`, and its report, of which nothing is trusted."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from syncd.model.entry import Entry, Kind, arrived_digest
from syncd.model.manifest import Manifest, removed_paths, replaced_entries

_DIGEST_BYTES = 16
_EXECUTABLE = 0o100
_GONE, _NOT_KNOWN = "-", "?"
# A reference's name that git refuses (git-check-ref-format(1)), or that cannot be there beside the branch `home`.
_NO_BRANCH = re.compile(r"[\0-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(/|$)|(^|/)\.|[./]$|^[-/]|^home/|^(HEAD|@)?$")


class RepositoryState(StrEnum):
    """The outcome of a request."""

    MADE = "made"
    FOLLOWED = "followed"
    LOST = "lost"  # it is not as syncd left it, so that the request must name all paths
    FOREIGN = "foreign"  # someone else made it
    NO_GIT = "no-git"
    FAILED = "failed"


class RepositoryReport(Struct, frozen=True):
    """The report. `home` is the commit of what was sent; `left_out` counts paths that are not there as they were sent.

    `moved`: the agent's branch is at that commit too, as no one works on it.
    """

    state: RepositoryState
    home: Annotated[str, Meta(pattern=r"^([0-9a-f]{40})?\Z")] = ""
    left_out: Annotated[int, Meta(ge=0)] = 0
    moved: bool = False
    why: Annotated[str, Meta(max_length=1000)] = ""


def branch_there(name: str) -> str:
    """Return the name of the agent's branch: that of the branch here, or "main" where git would not have it there."""
    return "main" if _NO_BRANCH.search(name) else _as_utf8(name)


def versions_of(before: Manifest, now: Manifest) -> dict[str, Entry | None]:
    """Return the files and links that git sees as other than before; None: it is gone. Times do not count."""
    changed: dict[str, Entry | None] = {}
    for path in replaced_entries(before, now):
        entry, old = now[path], before.get(path)
        if entry.kind is Kind.DIRECTORY:
            if old is not None and old.kind is not Kind.DIRECTORY:
                changed[path] = None
        elif old is None or _content(old) != _content(entry):
            changed[path] = entry
    for path in removed_paths(before, now):
        if before[path].kind is not Kind.DIRECTORY:
            changed[path] = None
    return changed


def _content(entry: Entry) -> tuple[object, ...]:
    return entry.kind, entry.mode & _EXECUTABLE, entry.size_bytes, entry.target, arrived_digest(entry)


def encoded_versions(versions: Mapping[str, Entry | None]) -> dict[str, Any]:
    """Return the paths and their versions as JSON values, in columns. One whose content is not known stays as it is."""
    paths: list[str] = []
    kinds: list[str] = []
    sizes: list[int] = []
    digests: list[bytes] = []
    targets: list[str] = []
    for path, entry in versions.items():
        if entry is None:
            kinds.append(_GONE)
        elif entry.kind is Kind.SYMLINK:
            kinds.append("l")
            targets.append(_as_utf8(entry.target))
        elif len(arrived_digest(entry)) >= _DIGEST_BYTES:
            kinds.append("x" if entry.mode & _EXECUTABLE else "f")
            sizes.append(entry.size_bytes)
            digests.append(arrived_digest(entry)[:_DIGEST_BYTES])
        else:
            kinds.append(_NOT_KNOWN)
        paths.append(_as_utf8(path))
    return {
        "paths": "\0".join(paths),
        "kinds": "".join(kinds),
        "sizes": sizes,
        "digests": base64.b64encode(b"".join(digests)).decode(),
        "targets": targets,
    }


def report_of(rows: Iterable[list[Any]]) -> RepositoryReport | None:
    """Return the report among the rows that the program printed; None if there is none, or an impossible one."""
    for row in rows:
        if row[:1] == ["done"] and len(row) == 2:
            try:
                report = msgspec.convert(row[1], RepositoryReport)
            except msgspec.ValidationError:
                return None
            if bool(report.home) is (report.state in (RepositoryState.MADE, RepositoryState.FOLLOWED)):
                return report
    return None


def _as_utf8(name: str) -> str:
    # The sandbox does not know this machine's encoding of names.
    return os.fsencode(name).decode("utf-8", "surrogateescape")
