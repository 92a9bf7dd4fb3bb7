"""What someone in the sandbox made of our files, where an archive is about to overwrite it.

Size and whole-second mtime are believed where they are as we sent them; else the content's digest decides. Modes and a
directory's times are not compared.
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

# So that the list stays a small upload, 16 bytes a path, and what is said of each fits into one answer of 1 MiB.
MOST_ASKED = 20_000
_MOST_NAMED = 3
_SAVE = "`syncd pause` while the agent works, and `syncd pull DEST` to save what it made"


class RemoteChange(Enum):
    """What became of a path in the sandbox. The values are parts of a sentence."""

    CHANGED = ("changed in the sandbox after syncd had put {it} there", "wrote over {it}", _SAVE)
    FOREIGN = ("in the sandbox with other content", "wrote over {it}", _SAVE)
    REMOVED = ("removed in the sandbox", "put {it} there again", "delete {it} here too, or ignore {it}")


@dataclass(frozen=True)
class CheckList:
    """Paths that an archive overwrites, with each entry of ours that may lie there, what is sent among them.

    `ours` are those that were put there before; `missed` those of them that should be there.
    """

    versions: Versions
    ours: Collection[str]
    missed: Collection[str]


@dataclass(frozen=True)
class RemoteEntry:
    """What lies there. `digest` is the first bytes of that of a file, where its size is one of ours, or of a target."""

    kind: Kind | None
    size_bytes: int = 0
    digest: bytes = b""


ABSENT = RemoteEntry(None)
OTHER = RemoteEntry(None, -1)  # a FIFO, say


def check_list(
    wanted: Mapping[str, Entry],
    only: Collection[str] | None,
    held: Sequence[Mapping[str, Entry]],
    missed: Collection[str],
) -> CheckList:
    """What is to be asked before `wanted`, or `only` these paths of it, are put over what was sent before.

    `held` are manifests of ours of which each may be there, what is there for certain first. Of more than `MOST_ASKED`
    paths only those are asked for that changed here.
    """
    paths: Iterable[str] = wanted if only is None else [path for path in wanted if path in only]
    if len(wanted if only is None else only) > MOST_ASKED:
        here = difference(held[0], wanted)
        paths = [*here.added, *here.changed, *here.uncertain][:MOST_ASKED]
    versions = {path: [wanted[path], *(old[path] for old in held if path in old)] for path in paths}
    return CheckList(versions, held[0].keys(), missed)


def change(asked: CheckList, path: str, seen: RemoteEntry) -> RemoteChange | None:
    """What was changed there; None: nothing, or nothing that is lost by the overwriting."""
    if seen == ABSENT:
        return RemoteChange.REMOVED if path in asked.missed else None
    if any(_is(entry, seen) for entry in asked.versions[path]):
        return None
    return RemoteChange.CHANGED if path in asked.ours else RemoteChange.FOREIGN


def _is(entry: Entry, seen: RemoteEntry) -> bool:
    if entry.kind is not seen.kind:
        return False
    if entry.kind is Kind.SYMLINK:
        return sha256(entry.target.encode("utf-8", "surrogateescape")).digest().startswith(seen.digest)
    if entry.kind is Kind.DIRECTORY:
        return True
    # Of content that is not known here nobody can say that it was changed.
    digest = arrived_digest(entry)
    return entry.size_bytes == seen.size_bytes and (not digest or digest.startswith(seen.digest))


def warnings(changes: Mapping[str, RemoteChange], at: str) -> list[SyncWarning]:
    """What a sync wrote over, the last of it at that time: one problem a kind of change, the first paths by name."""
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
