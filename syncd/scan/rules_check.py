"""Checks that the rules by which paths were selected did not change until their contents had been read.

If someone writes a rule and then a file that it excludes, a scan may read the ignore file before and the directory
after that, and so include the file. So ignore files are read once more before anything is uploaded.
"""

from __future__ import annotations

from collections.abc import Iterable

from syncd.core.errors import WorkspaceError
from syncd.scan.tree_cache import TreeCache
from syncd.selection import safe_open
from syncd.selection.ignore_files import read_ignore_files


def rules_unchanged(workspace: str, tree: TreeCache, folders: Iterable[str]) -> bool:
    """True if the ignore files in these folders, and in all above them, are as they were in the scan.

    A folder that no longer exists has no rules. Rules that cannot be read count as changed.
    """
    try:
        with safe_open.DirCursor(safe_open.open_workspace(workspace)) as cursor:
            return all(_is_unchanged(cursor, tree, folder) for folder in sorted(_with_all_above(folders)))
    except (WorkspaceError, OSError):
        return False


def _is_unchanged(cursor: safe_open.DirCursor, tree: TreeCache, folder: str) -> bool:
    record = tree.get(folder)
    if record is None:
        return True
    try:
        descriptor, _ = cursor.parent_of(f"{folder}/." if folder else ".")
    except OSError:
        return True
    try:
        return read_ignore_files(descriptor, record.outer.ignore_files) == record.rules
    except OSError:
        return False


def _with_all_above(folders: Iterable[str]) -> set[str]:
    """Return the folders and those above them, the workspace itself included."""
    found = {""}
    for folder in folders:
        above = folder
        while above not in found:
            found.add(above)
            above = above.rpartition("/")[0]
    return found
