"""Whether a symlink of the workspace may go into the archive, by where it leads on this disk."""

from __future__ import annotations

import errno
import os

from syncd.policy.links import stays_inside


def leads_inside(workspace: str, path: str, target: str, name: str, parent: int) -> bool:
    """Whether a link stays inside the workspace by its text and by where it ends, and ends somewhere.

    One that only dangles may be whole over there; one that goes in a circle makes newer extractors give up.
    """
    if not stays_inside(path, target):
        return False
    try:
        os.stat(name, dir_fd=parent)
    except OSError as failure:
        # Asked first: the kernel gives up on a chain of 40 links, `realpath` follows one of any length.
        if failure.errno == errno.ELOOP:
            return False
    try:
        real = os.path.realpath(os.path.join(workspace, path))
    except RecursionError:  # up to Python 3.12; where a name on the way is missing, the kernel did not get that far
        return False
    return real == workspace or real.startswith(workspace + "/")
