"""Creates a `.git` folder that git accepts as a repository, without running git; and versions that git can hold."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from hashlib import sha256
from itertools import count
from pathlib import Path

from syncd.model.entry import Kind, SeenEntry

_COPIES = Path(tempfile.mkdtemp(prefix="copies-"))
_NUMBERS = count()
atexit.register(shutil.rmtree, _COPIES, ignore_errors=True)


def file_of(content: bytes, *, executable: bool = False, size_bytes: int | None = None) -> SeenEntry:
    """Return the version of a file with this content; `size_bytes` is what it was when it was looked at."""
    copy = _COPIES / str(next(_NUMBERS))
    copy.write_bytes(content)
    mode, size_bytes = 0o755 if executable else 0o644, len(content) if size_bytes is None else size_bytes
    return SeenEntry(Kind.FILE, mode, size_bytes=size_bytes, digest=sha256(content).digest(), copy=str(copy))


def link_to(target: str) -> SeenEntry:
    """Return the version of a link."""
    return SeenEntry(Kind.SYMLINK, target=target)


def make_repository(top: Path, exclude: str = "") -> Path:
    """Create it, and return its exclude file."""
    for name in ("objects", "refs", "info"):
        (top / ".git" / name).mkdir(parents=True)
    (top / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (top / ".git/info/exclude").write_text(exclude)
    return top / ".git/info/exclude"
