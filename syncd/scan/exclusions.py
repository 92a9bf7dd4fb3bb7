"""Paths that are not sent, and why: what no archive can hold, the limits, the warnings."""

from __future__ import annotations

import errno
import heapq
from collections.abc import Mapping

from syncd.core.errors import SnapshotTooLarge, SyncWarning
from syncd.model.entry import Entry
from syncd.model.manifest import Manifest
from syncd.selection.selection import BUILT_IN, OWN_FILES, Decision, Rule

_MIB = 1 << 20
# The kernel accepts no path of 4,096 bytes or more (PATH_MAX in linux/limits.h), and extractors use whole paths: one
# file with a longer path made a sandbox refuse the whole archive. The rest is for the folder that it extracts into.
LONGEST_PATH_BYTES = 4096 - 256

# Kinds of paths that no archive can hold, whatever the rules are.
OUTSIDE = Decision(False, Rule(BUILT_IN, None, "links that lead outside the workspace"))
SPECIAL = Decision(False, Rule(BUILT_IN, None, "sockets, FIFOs and devices"))
TOO_LONG = Decision(False, Rule(BUILT_IN, None, f"paths of more than {LONGEST_PATH_BYTES:,} bytes"))
OWN_FILE = Decision(False, Rule(OWN_FILES, None, "a second name of a key or a configuration"))

_SHOWN = 60
# What is mounted does not answer any more, as the program behind a FUSE file system died, or its server is gone.
_UNREACHABLE = frozenset({errno.ENOTCONN, errno.ECONNABORTED, errno.ESTALE, errno.EHOSTDOWN, errno.EHOSTUNREACH})


def unreadable(path: str, failure: OSError) -> SyncWarning:
    """Return the warning about a file or directory that cannot be read."""
    repair = "mount it again" if failure.errno in _UNREACHABLE else "repair it"
    remedy = f"{'let your user read it' if failure.errno == errno.EACCES else repair}, or exclude it"
    return SyncWarning(f"unreadable:{path}", f"{path!r} cannot be read ({failure.strerror}) and is not sent", remedy)


def unmounted(path: str) -> SyncWarning:
    """Return the warning about a place at which something was mounted, and is not any more."""
    return SyncWarning(
        f"unmounted:{path}",
        f"what was mounted at {path!r} is missing; what was sent of it stays in the sandbox",
        "mount it again, or run `syncd push --force` if it is to be removed there",
    )


def leads_outside(path: str) -> SyncWarning:
    """Return the warning about a link that leads outside of the workspace."""
    return SyncWarning(
        f"link:{path}",
        f"the link {path!r} leads outside the workspace and is excluded",
        "let it point inside the workspace, or exclude it",
    )


def too_deep(folder: str) -> SyncWarning:
    """Return the warning about a directory that holds paths which are too long.

    The directory's own path is long too, so only its beginning and its end are shown.
    """
    return SyncWarning(
        f"long:{folder}",
        f"in {folder[:_SHOWN]!r} … {folder[-_SHOWN:]!r} are paths of more than {LONGEST_PATH_BYTES:,} bytes, "
        "which are excluded as few programs can open them",
        "give its folders shorter names, or exclude it",
    )


def largest(manifest: Mapping[str, Entry], count: int) -> list[tuple[str, int]]:
    """Return the paths of the largest files with their sizes in bytes, the largest first."""
    sizes = ((entry.size_bytes, path) for path, entry in manifest.items() if entry.size_bytes)
    return [(path, size) for size, path in heapq.nlargest(count, sizes)]


def check_size(manifest: Manifest, max_mib: int) -> None:
    """Raise `SnapshotTooLarge` if the snapshot is refused. The files' sizes count before compression."""
    total = manifest.content_bytes
    if total <= max_mib * _MIB:
        return
    big = ", ".join(f"{path!r} ({mib(size)})" for path, size in largest(manifest, 3))
    raise SnapshotTooLarge(
        f"the snapshot holds {mib(total)}, more than sync.max_snapshot_mib = {max_mib}; the largest: {big}",
        "exclude what is large in .syncdignore, or raise sync.max_snapshot_mib with `syncd config edit`",
    )


def too_long(path: str) -> bool:
    """True if most programs could not create this path, relative to the workspace, in the sandbox."""
    if len(path) * 4 <= LONGEST_PATH_BYTES:
        return False
    return len(path.encode("utf-8", "surrogateescape")) > LONGEST_PATH_BYTES


def mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.1f} MiB"
