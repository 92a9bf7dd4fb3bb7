"""Whether the rules by which paths were chosen still stood when their contents had been read.

Somebody writes a rule, and then the file that it is about, while a scan is past the one and not yet at the other: then
the scan went by rules that were never that file's. So ignore files are read once more before anything leaves.
"""

from __future__ import annotations

from collections.abc import Iterable

from syncd.core.errors import WorkspaceError
from syncd.scan.tree_cache import TreeCache
from syncd.selection import safe_open
from syncd.selection.ignore_files import read_git_rules, read_ignore_files
from syncd.selection.selection import OuterRules


def rules_unchanged(
    workspace: str, tree: TreeCache, outer: OuterRules | None, personal: str, paths: Iterable[str]
) -> bool:
    """Whether all that is said of these paths in ignore files is what the tree was made by.

    `outer` is what git's say outside of the workspace's own directories; None where these do not count. A folder that
    is gone says nothing any more. Rules that cannot be read do not stand.
    """
    try:
        with safe_open.DirCursor(safe_open.open_workspace(workspace)) as cursor:
            return (outer is None or read_git_rules(workspace, personal).rules == outer) and all(
                _stand(cursor, tree, folder) for folder in sorted(_folders_of(paths))
            )
    except (WorkspaceError, OSError):
        return False


def _stand(cursor: safe_open.DirCursor, tree: TreeCache, folder: str) -> bool:
    listing = tree.get(folder)
    if listing is None:
        return True
    try:
        descriptor, _ = cursor.parent_of(f"{folder}/." if folder else ".")
    except OSError:
        return True
    try:
        return read_ignore_files(descriptor, listing.outer.ignore_files) == listing.rules
    except OSError:
        return False


def _folders_of(paths: Iterable[str]) -> set[str]:
    """The folders above these paths, the workspace itself among them."""
    folders = {""}
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders
