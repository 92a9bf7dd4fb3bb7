"""Finds what keeps paths from being extracted. It runs in the sandbox, beside the program that looks there.

It changes nothing. Of files it reads only a git repository's references: an archive that holds another repository would
take the place of all of them.
"""

import os
import re
import stat
from typing import Any

_LARGEST = 64 << 20  # of packed references


def kind_of(mode: "int") -> "str":
    """Return the kind of what has this mode: "d", "f", "l", or "o" for all others."""
    for kind, holds in (("d", stat.S_ISDIR), ("f", stat.S_ISREG), ("l", stat.S_ISLNK)):
        if holds(mode):
            return kind
    return "o"


def obstacle(path: "bytes", kind: "str", kind_at: "Any", is_writable: "Any") -> "tuple[bytes, str] | None":
    """Return the place and kind of what keeps a path from being extracted as a directory, "d", or as another kind.

    `kind_at` returns the kind of what is at a path, "" if nothing is there or something above it is no directory. The
    kind is "r" if a directory is not `is_writable`; the place is then the highest path that cannot be made in it.
    """
    made = there = path
    kind_there = kind_at(path)
    while not kind_there:
        made, there = there, there.rpartition(b"/")[0]
        kind_there = kind_at(there) if there else "d"
    if there == path and kind_there == "d":
        return None if kind == "d" else (path, "d")
    if kind_there != "d" and (there != path or kind == "d"):
        return there, kind_there
    return None if is_writable(made.rpartition(b"/")[0]) else (made, "r")


def holds_commits(folder: "bytes") -> "bool":
    """Return True if a reference of the repository may lead to a commit that syncd did not make."""
    if not os.path.lexists(os.path.join(folder, b"HEAD")):
        return False
    ours = {_content(folder, b"refs/syncd/home").strip()}
    ours.update(re.findall(rb"[0-9a-f]{40}", _content(folder, b"syncd/state")))
    found = re.findall(rb"(?m)^\^?([0-9a-f]{40,64})\b", _content(folder, b"packed-refs"))
    for part in (b"refs", b"worktrees"):
        for base, _, names in os.walk(os.path.join(folder, part)):
            found += [_content(base, name).strip() for name in names if part == b"refs" or name == b"HEAD"]
    tips = {tip for tip in [*found, _content(folder, b"HEAD").strip()] if not tip.startswith(b"ref: ")}
    return not tips <= ours or os.path.lexists(os.path.join(folder, b"reftable"))


def _content(folder: "bytes", name: "bytes") -> "bytes":
    """Return the content of a small file; empty if there is none."""
    try:
        descriptor = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    except OSError:
        return b"unreadable"
    with open(descriptor, "rb") as file:
        return file.read(_LARGEST)
