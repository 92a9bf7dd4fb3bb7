"""The program that finds out, in the sandbox, which paths of an archive cannot be extracted there.

It runs in the sandbox, alone, with any Python 3, and changes nothing. It follows no link, and of files it reads only a
git repository's references: an archive that holds another repository would take the place of all of them.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from typing import Any

_MOST = 5_000  # so that the answer stays small; the next check finds the others
_A_LINE = 100  # findings; some logs cut longer lines
_LARGEST = 64 << 20  # of packed references


class _Probe:
    """Checks the workspace. `blocked` maps paths to their obstacles: "d", "f", "l", "o", "r" read-only, "g" commits."""

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


def _holds_commits(folder: str) -> bool:
    """True if a reference of the repository may lead to a commit that syncd did not make."""
    if not os.path.lexists(os.path.join(folder, "HEAD")):
        return False
    ours = {_content(folder, "refs/syncd/home").strip()}
    ours.update(re.findall(rb"[0-9a-f]{40}", _content(folder, "syncd/state")))
    found = re.findall(rb"(?m)^\^?([0-9a-f]{40,64})\b", _content(folder, "packed-refs"))
    for part in ("refs", "worktrees"):
        for base, _, names in os.walk(os.path.join(folder, part)):
            found += [_content(base, name).strip() for name in names if part == "refs" or name == "HEAD"]
    tips = {tip for tip in [*found, _content(folder, "HEAD").strip()] if not tip.startswith(b"ref: ")}
    return not tips <= ours or os.path.lexists(os.path.join(folder, "reftable"))


def _content(folder: str, name: str) -> bytes:
    """Return the content of a small file; empty if there is none."""
    try:
        descriptor = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    except OSError:
        return b"unreadable"
    with open(descriptor, "rb") as file:
        return file.read(_LARGEST)


def main() -> None:
    """Read the list beside this file, and print the paths that are blocked."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "paths.json"), encoding="ascii") as file:
        request = json.load(file)
    probe = _Probe(os.open(os.environ["AGENT_WORKSPACE"], os.O_RDONLY | os.O_DIRECTORY))
    for path, kind in zip(request["paths"], request["kinds"]):  # noqa: B905 - older Pythons have no strict
        if len(probe.blocked) < _MOST:
            probe.check(path.encode("utf-8", "surrogateescape"), kind)
    for path in request["repositories"]:
        if _holds_commits(os.path.join(os.environ["AGENT_WORKSPACE"], path)):
            probe.blocked[path.encode("utf-8", "surrogateescape")] = "g"
    found = [[name.decode("utf-8", "surrogateescape"), kind] for name, kind in probe.blocked.items()]
    for start in range(0, len(found), _A_LINE):
        _print([request["word"], "blocked", found[start : start + _A_LINE]])
    _print([request["word"], "done", len(found)])


def _print(row: list[Any]) -> None:
    sys.stdout.write(json.dumps(row, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
