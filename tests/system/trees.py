"""Two trees compared by names, contents, links, and the executable bit."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path

Tree = dict[str, tuple[object, ...]]


def tree(root: Path | str, skipped: str = "") -> Tree:
    """Return each path's entry, without special files and those of that name: what a sandbox keeps of it."""
    found: Tree = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(os.path.join(root, folder)) as listing:
            for item in listing:
                path = f"{folder}/{item.name}" if folder else item.name
                if item.name == skipped:
                    continue
                if item.is_symlink():
                    found[path] = ("link", os.readlink(item.path))
                elif item.is_dir():
                    found[path] = ("folder",)
                    folders.append(path)
                elif item.is_file():
                    with open(item.path, "rb") as file:
                        found[path] = ("file", bool(os.fstat(file.fileno()).st_mode & stat.S_IXUSR), file.read())
    return found


def lacking(wanted: Mapping[str, object], there: Mapping[str, object]) -> list[str]:
    """Return the wanted paths that are missing or different."""
    return sorted(path for path, what in wanted.items() if there.get(path) != what)


def names_in(archive: Path) -> list[str]:
    """Return the archive's names in their order, read to its end."""
    with tarfile.open(archive, "r:gz", errors="surrogateescape") as tar:
        return tar.getnames()


def is_there(wanted: Mapping[str, object], sandbox: Path) -> bool:
    """True if the sandbox holds all of this; false while it extracts."""
    try:
        return not lacking(wanted, tree(sandbox))
    except FileNotFoundError:
        return False
