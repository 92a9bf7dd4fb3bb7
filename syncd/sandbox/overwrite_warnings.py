"""Rules that find changes made in the sandbox to uploaded files, where an archive is about to overwrite them.

A file with the size and whole-second mtime that were sent counts as unchanged; else the content's digest decides. Modes
and a directory's times are not compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

from syncd.core.text import shown_path
from syncd.core.warning import SyncWarning
from syncd.sandbox.removal_plan import Versions
from syncd.scan.manifest import Entry, Kind, arrived_digest, difference

# So that the list stays a small upload, 16 bytes a path, and the findings fit into one answer of 1 MiB.
MOST_CHECKED = 20_000
_MOST_NAMED = 3
_SAVE = "`syncd pause` while the agent works, and `syncd pull DEST` to save what it made"


class RemoteChange(Enum):
    """A change to a path in the sandbox. The values are parts of a sentence."""

    CHANGED = ("changed in the sandbox after syncd had put {it} there", "wrote over {it}", _SAVE)
    FOREIGN = ("in the sandbox with other content", "wrote over {it}", _SAVE)
    REMOVED = ("removed in the sandbox", "put {it} there again", "delete {it} here too, or ignore {it}")


@dataclass(frozen=True)
class CheckList:
    """Paths that an archive overwrites, each with the uploaded entries that may be there and the one that is sent.

    `uploaded` are those that were put there before; `expected` those of them that should be there.
    """

    versions: Versions
    uploaded: Collection[str]
    expected: Collection[str]


@dataclass(frozen=True)
class RemoteEntry:
    """An entry in the sandbox. `digest` holds the first bytes of a target's, or of a file's if its size is expected."""

    kind: Kind | None
    size_bytes: int = 0
    digest: bytes = b""


ABSENT = RemoteEntry(None)
OTHER = RemoteEntry(None, -1)  # such as a FIFO


def check_list(
    wanted: Mapping[str, Entry],
    only: Collection[str] | None,
    held: Sequence[Mapping[str, Entry]],
    expected: Collection[str],
) -> CheckList:
    """Return what to check before `wanted`, or `only` these paths of it, overwrite what was sent before.

    `held` are uploaded manifests of which each may be there, the one that surely is there first. Of more than
    `MOST_CHECKED` paths only those that changed here are checked.
    """
    paths: Iterable[str] = wanted if only is None else [path for path in wanted if path in only]
    if len(wanted if only is None else only) > MOST_CHECKED:
        changes = difference(held[0], wanted)
        paths = [*changes.added, *changes.changed, *changes.uncertain][:MOST_CHECKED]
    versions = {path: [wanted[path], *(old[path] for old in held if path in old)] for path in paths}
    return CheckList(versions, held[0].keys(), expected)


def change_of(check_list: CheckList, path: str, entry: RemoteEntry) -> RemoteChange | None:
    """Return the change there; None if there is none, or none that is lost by the overwriting."""
    if entry == ABSENT:
        return RemoteChange.REMOVED if path in check_list.expected else None
    if any(_matches(version, entry) for version in check_list.versions[path]):
        return None
    return RemoteChange.CHANGED if path in check_list.uploaded else RemoteChange.FOREIGN


def _matches(entry: Entry, remote: RemoteEntry) -> bool:
    if entry.kind is not remote.kind:
        return False
    if entry.kind is Kind.SYMLINK:
        return sha256(entry.target.encode("utf-8", "surrogateescape")).digest().startswith(remote.digest)
    if entry.kind is Kind.DIRECTORY:
        return True
    # Without a known digest here, the content counts as unchanged.
    digest = arrived_digest(entry)
    return entry.size_bytes == remote.size_bytes and (not digest or digest.startswith(remote.digest))


def warnings(changes: Mapping[str, RemoteChange], at: str) -> list[SyncWarning]:
    """Return warnings about what syncs overwrote, last at that time: one a kind of change, with the first paths."""
    found = []
    for kind in RemoteChange:
        paths = [path for path in changes if changes[path] is kind]
        if not paths:
            continue
        what, done, remedy = (part.format(it="it" if len(paths) == 1 else "them") for part in kind.value)
        verb = "was" if len(paths) == 1 else "were"
        text = f"{_named(paths)} {verb} {what}, and the sync of {at} {done}"
        found.append(SyncWarning(f"files {kind.name.lower()} in the sandbox", text, remedy))
    return found


def _named(paths: list[str]) -> str:
    names = [repr(shown_path(path)) for path in paths[:_MOST_NAMED]]
    more = len(paths) - len(names)
    if more:
        return f"{', '.join(names)} and {more:,} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
