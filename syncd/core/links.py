"""Finds the links that a path leads through, so that a change of one is noticed."""

from __future__ import annotations

import os

# As many as the kernel follows (path_resolution(7)).
_MOST = 40


def links_on(path: str) -> dict[str, frozenset[str]]:
    """Return the names of the links on the way of an absolute path, by the real directory that each is in."""
    found: dict[str, frozenset[str]] = {}
    folder, names = "/", path.split("/")
    while names and len(found) < _MOST:
        name = names.pop(0)
        if name in ("", "."):
            continue
        at = os.path.normpath(os.path.join(folder, name))
        try:
            target = os.readlink(at)
        except OSError:  # no link
            folder = at
            continue
        found[folder] = found.get(folder, frozenset()) | {name}
        names = [*target.split("/"), *names]
        folder = "/" if target.startswith("/") else folder
    return found
