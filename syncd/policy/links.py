"""Whether a symbolic link's text stays inside the workspace.

Extractors look at the text of a link too (Python's `data` filter refuses a whole archive for one absolute or escaping
link), so a link must be safe by its text as well as by where it leads; the second is for the scan to look up.
"""

from __future__ import annotations


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
