"""The program that finds out, in the sandbox, which paths of an archive cannot be extracted there.

It runs in the sandbox, alone, with any Python 3, and changes nothing. It follows no link and reads no file.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import Any

_MOST = 5_000  # so that the answer stays small; the next check finds the others
_A_LINE = 100  # findings; some logs cut longer lines


class _Probe:
    """Checks the workspace. `blocked` maps paths to what blocks them: "d", "f", "l", "o", "r" a read-only folder."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._folders = {b"": True}
        self._writable: dict[bytes, bool] = {}
        self.blocked: dict[bytes, str] = {}

    def check(self, name: bytes, kind: str) -> None:
        """Add `name` to `blocked` if it cannot be created as a "d", or as another kind."""
        parent = os.path.dirname(name)
        if not self._is_folder(parent):
            return  # the path that blocks it is found instead
        if kind == "d" and not self._is_folder(name):
            return
        current = self._kind(name)
        if (current == "d" and kind != "d") or (current != "d" and not self._is_writable(parent)):
            self.blocked[name] = "d" if current == "d" else "r"

    def _is_folder(self, name: bytes) -> bool:
        """True if it is a folder, or can be created as one."""
        if name not in self._folders:
            self._folders[name] = self._is_folder(os.path.dirname(name))
            if self._folders[name]:
                current = self._kind(name)
                if current not in ("", "d"):
                    self.blocked[name] = current
                    self._folders[name] = False
        return self._folders[name]

    def _is_writable(self, folder: bytes) -> bool:
        """True if entries can be created and replaced in the folder, or it does not exist."""
        if folder not in self._writable:
            path = folder or b"."
            allowed = os.W_OK | os.X_OK
            self._writable[folder] = self._kind(path) != "d" or os.access(path, allowed, dir_fd=self._top)
        return self._writable[folder]

    def _kind(self, name: bytes) -> str:
        try:
            mode = os.stat(name, dir_fd=self._top, follow_symlinks=False).st_mode
        except OSError:
            return ""
        for kind, holds in (("d", stat.S_ISDIR), ("f", stat.S_ISREG), ("l", stat.S_ISLNK)):
            if holds(mode):
                return kind
        return "o"


def main() -> None:
    """Read the list beside this file, and print the paths that are blocked."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "paths.json"), encoding="ascii") as file:
        request = json.load(file)
    probe = _Probe(os.open(os.environ["AGENT_WORKSPACE"], os.O_RDONLY | os.O_DIRECTORY))
    for path, kind in zip(request["paths"], request["kinds"]):  # noqa: B905 - older Pythons have no strict
        if len(probe.blocked) < _MOST:
            probe.check(path.encode("utf-8", "surrogateescape"), kind)
    found = [[name.decode("utf-8", "surrogateescape"), kind] for name, kind in probe.blocked.items()]
    for start in range(0, len(found), _A_LINE):
        _print([request["word"], "blocked", found[start : start + _A_LINE]])
    _print([request["word"], "done", len(found)])


def _print(row: list[Any]) -> None:
    sys.stdout.write(json.dumps(row, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
