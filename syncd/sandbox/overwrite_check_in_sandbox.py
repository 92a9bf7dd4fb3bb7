"""The program that checks, in the sandbox, the files that are about to be overwritten.

It runs in the sandbox, alone, with any Python 3, and changes nothing. It follows no link below the workspace. It prints
nothing of a file with a size and time as on its list; else the entry there, with its digest only if the size is as on
the list.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import sys
from typing import Any

_A_LINE = 100  # findings; some logs cut longer lines
_DIGEST_BYTES = 16  # of a sha256: the findings about 20,000 files must fit into one answer


def _as_base64(digest: bytes) -> str:
    return base64.b64encode(digest[:_DIGEST_BYTES]).decode().rstrip("=")


def _digest(name: bytes, top: int) -> str:
    sha256 = hashlib.sha256()
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=top)
    with os.fdopen(descriptor, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            sha256.update(block)
    return _as_base64(sha256.digest())


class _Workspace:
    """The workspace. A path behind a link that took a directory's place counts as absent."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._folders = {b"": True}

    def _is_folder(self, name: bytes) -> bool:
        if name not in self._folders:
            self._folders[name] = self._is_folder(os.path.dirname(name)) and self._kind(name) == "d"
        return self._folders[name]

    def _kind(self, name: bytes) -> str:
        try:
            mode = os.stat(name, dir_fd=self._top, follow_symlinks=False).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return ""
        return "d" if stat.S_ISDIR(mode) else "other"

    def differing(self, name: bytes, kind: str, stamps: list[int]) -> list[Any] | None:
        """Return the entry of this name, kind first; None if it is as on the list. Stamps are sizes and times."""
        if not self._is_folder(os.path.dirname(name)):
            return ["absent"]
        try:
            status = os.stat(name, dir_fd=self._top, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                return None if kind == "d" else ["d"]
            if stat.S_ISLNK(status.st_mode):
                return ["l", _as_base64(hashlib.sha256(os.readlink(name, dir_fd=self._top)).digest())]
            if not stat.S_ISREG(status.st_mode):
                return ["other"]
            size, sizes = status.st_size, stamps[0::2]
            # Uploaded files have times of whole seconds; one written since hardly ever has.
            times = [second * 10**9 for second in stamps[1::2]]
            if (size, status.st_mtime_ns) in zip(sizes, times):  # noqa: B905 - older Pythons have no strict
                return None
            return ["f", size, _digest(name, self._top) if size in sizes else ""]
        except (FileNotFoundError, NotADirectoryError):
            return ["absent"]
        except OSError as failure:
            return ["failed", os.strerror(failure.errno or 0)]


def main() -> None:
    """Read the list beside this file, and print the entries that differ."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "paths.json"), encoding="ascii") as file:
        request = json.load(file)
    workspace = _Workspace(os.open(os.environ["AGENT_WORKSPACE"], os.O_RDONLY | os.O_DIRECTORY))
    found: list[list[Any]] = []
    for index, (path, kind, stamps) in enumerate(zip(request["paths"], request["kinds"], request["stamps"])):  # noqa: B905
        entry = workspace.differing(path.encode("utf-8", "surrogateescape"), kind, stamps)
        if entry is not None:
            found.append([index, *entry])
    for start in range(0, len(found), _A_LINE):
        _print([request["word"], "seen", found[start : start + _A_LINE]])
    _print([request["word"], "done", len(found)])


def _print(row: list[Any]) -> None:
    sys.stdout.write(json.dumps(row, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
