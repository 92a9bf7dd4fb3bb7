"""Decides whether a symbolic link stays inside the workspace, by its target's text and those of the links on its way.

The disk is not used, so a link in a circle or to nowhere is a link like any other. Extractors check the text as well:
Python's `data` filter refuses a whole archive for one link that is absolute or leads outside.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

# The kernel follows 40 links (path_resolution(7)), `realpath` any number; a longer chain is treated as a circle.
_MAX_FOLLOWED = 256

LinkAt = Callable[[str], str | None]
"""Returns the target of the link at a path; None if there is no link."""


def stays_inside(path: str, target: str) -> bool:
    """True if `target`, the text of a link at `path`, stays inside the workspace, other links aside."""
    if not target or target.startswith("/"):
        return False
    depth = path.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
            if depth < 0:
                return False
        elif part not in ("", "."):
            depth += 1
    return True


def has_inner_dotdot(target: str) -> bool:
    """True if a ".." follows a name, as in `a/../b`: then the destination depends on `a`, which may be a link.

    Links without this that each stay inside by their text stay inside together.
    """
    components = [part for part in target.split("/") if part not in ("", ".")]
    return any(after == ".." and before != ".." for before, after in pairwise(components))


def leads_out(path: str, target: str, link_at: LinkAt) -> bool:
    """True if a link that stays inside by its text leaves the workspace through other links."""
    location = path.split("/")[:-1]
    remaining = target.split("/")[::-1]
    followed = 0
    while remaining:
        part = remaining.pop()
        if part == "..":
            if not location:
                return True
            location.pop()
        elif part not in ("", "."):
            location.append(part)
            next_target = link_at("/".join(location))
            if next_target is not None:
                followed += 1
                if followed > _MAX_FOLLOWED:
                    return False
                location.pop()
                remaining += next_target.split("/")[::-1]
    return False
