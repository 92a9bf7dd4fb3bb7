"""The warnings about paths that stay home though no rule of a person's says so."""

from __future__ import annotations

import errno

from syncd.core.warning import SyncWarning
from syncd.scan.size_limit import LONGEST_PATH_BYTES

_SHOWN = 60


def unreadable(path: str, failure: OSError) -> SyncWarning:
    """A file or directory that cannot be read."""
    remedy = "let your user read it, or ignore it" if failure.errno == errno.EACCES else "mend it, or ignore it"
    return SyncWarning(f"unreadable:{path}", f"{path!r} cannot be read ({failure.strerror}) and is left out", remedy)


def leads_outside(path: str) -> SyncWarning:
    """A link that has no place in an archive."""
    return SyncWarning(
        f"link:{path}",
        f"the link {path!r} leads outside the workspace and stays home",
        "let it point inside the workspace, or ignore it",
    )


def too_deep(folder: str) -> SyncWarning:
    """A directory in which some paths are too long. Its own is nearly so: its beginning and end must do."""
    return SyncWarning(
        f"long:{folder}",
        f"in {folder[:_SHOWN]!r} … {folder[-_SHOWN:]!r} are paths of more than {LONGEST_PATH_BYTES:,} bytes, "
        "which stay home as few programs can open them",
        "give its folders shorter names, or ignore it",
    )
