"""Whether a symbolic link stays inside the workspace, by texts alone: its own, and those of the links on its way.

The disk is not asked where a link ends, so one that goes in a circle or nowhere is a link like any other. An extractor
asks the same of texts: Python's `data` filter refuses a whole archive for one link that is absolute or leads out.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

# The kernel follows 40 (path_resolution(7)), `realpath` any number; what goes on for longer is a circle.
_FOLLOWED_AT_MOST = 256

LinkAt = Callable[[str], str | None]
"""The target of the link that is at a path; None where there is none."""


def stays_inside(path: str, target: str) -> bool:
    """Whether `target`, read from a link at `path`, names something inside the workspace by its text alone."""
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


def turns_back(target: str) -> bool:
    """Whether the text goes up from a name, as `a/../b` does: where that leads depends on what `a` is.

    Links of which none does, and which each stay inside by their own text, stay inside together.
    """
    components = [part for part in target.split("/") if part not in ("", ".")]
    return any(after == ".." and before != ".." for before, after in pairwise(components))


def leads_out(path: str, target: str, link_at: LinkAt) -> bool:
    """Whether a link that stays inside by its text leaves the workspace through other links."""
    here = path.split("/")[:-1]
    ahead = target.split("/")[::-1]
    followed = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            if not here:
                return True
            here.pop()
        elif part not in ("", "."):
            here.append(part)
            further = link_at("/".join(here))
            if further is not None:
                followed += 1
                if followed > _FOLLOWED_AT_MOST:
                    return False
                here.pop()
                ahead += further.split("/")[::-1]
    return False
