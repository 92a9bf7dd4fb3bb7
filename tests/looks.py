"""What looks at a sandbox are asked for, and what they bring."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from itertools import count
from pathlib import Path

from syncd.model.entry import Entry, Kind, SeenEntry
from syncd.sandbox.look_request import LookAction, LookItem

COMPARE, FETCH, REMOVE, EXISTS = LookAction.COMPARE, LookAction.FETCH, LookAction.REMOVE, LookAction.EXISTS
PLACE, COMMITS = LookAction.PLACE, LookAction.COMMITS
FOLDER = Entry(Kind.DIRECTORY, 0o755, 1)
_COPIES = Path(tempfile.mkdtemp(prefix="copies-"))
_NUMBERS = count()
atexit.register(shutil.rmtree, _COPIES, ignore_errors=True)


def a_file(content: bytes = b"ours", mode: int = 0o644) -> Entry:
    return Entry(Kind.FILE, mode, 1, len(content), digest=hashlib.sha256(content).digest())


def item(action: LookAction, *versions: Entry) -> LookItem:
    return LookItem(versions, action)


def file_of(
    content: bytes, mode: int = 0o644, mtime_s: int = 1_700_000_000, *, size_bytes: int | None = None
) -> SeenEntry:
    """Return the version of a file that was fetched; `size_bytes` is what it was when it was looked at."""
    copy = _COPIES / str(next(_NUMBERS))
    copy.write_bytes(content)
    size_bytes = len(content) if size_bytes is None else size_bytes
    digest = hashlib.sha256(content).digest()
    return SeenEntry(Kind.FILE, mode, mtime_s, size_bytes, digest=digest, copy=str(copy))


def link_to(target: str) -> SeenEntry:
    """Return the version of a link."""
    return SeenEntry(Kind.SYMLINK, target=target)
