"""The program that looks, in the sandbox, which paths of an archive cannot be extracted there.

It runs over there, alone, under whatever Python 3 there is, and changes nothing. It follows no link and reads no file.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import Any

_MOST = 5_000  # so that the answer stays small; the others are found by the next look
_A_LINE = 100  # findings: longer lines some logs cut


class _Probe:
    """The workspace. `blocked` are paths and what hinders them: "d", "f", "l", "o" by kind, "r" a read-only folder."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._folders = {b"": True}
        self._writable: dict[bytes, bool] = {}
        self.blocked: dict[bytes, str] = {}

    def look(self, name: bytes, kind: str) -> None:
        """Whether `name` can be put there as a "d", or as something else."""
        parent = os.path.dirname(name)
        if not self._is_folder(parent):
            return  # what hinders it stands for it
        if kind == "d" and not self._is_folder(name):
            return
        there = self._kind(name)
        if (there == "d" and kind != "d") or (there != "d" and not self._takes(parent)):
            self.blocked[name] = "d" if there == "d" else "r"

    def _is_folder(self, name: bytes) -> bool:
        """Whether it is one, or can become one."""
        if name not in self._folders:
            self._folders[name] = self._is_folder(os.path.dirname(name))
            if self._folders[name]:
                there = self._kind(name)
                if there not in ("", "d"):
                    self.blocked[name] = there
                    self._folders[name] = False
        return self._folders[name]

    def _takes(self, folder: bytes) -> bool:
        """Whether names can be made and replaced in the folder, where there is one."""
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
    """Read the list beside this file, look, and say what cannot be put there."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "paths.json"), encoding="ascii") as file:
        asked = json.load(file)
    place = _Probe(os.open(os.environ["AGENT_WORKSPACE"], os.O_RDONLY | os.O_DIRECTORY))
    for path, kind in zip(asked["paths"], asked["kinds"]):  # noqa: B905 - older Pythons have no strict
        if len(place.blocked) < _MOST:
            place.look(path.encode("utf-8", "surrogateescape"), kind)
    found = [[name.decode("utf-8", "surrogateescape"), what] for name, what in place.blocked.items()]
    for start in range(0, len(found), _A_LINE):
        _say([asked["word"], "blocked", found[start : start + _A_LINE]])
    _say([asked["word"], "done", len(found)])


def _say(what: list[Any]) -> None:
    sys.stdout.write(json.dumps(what, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
