"""Two trees compared as a person would: names, contents, links, and what may be executed."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path

Tree = dict[str, tuple[object, ...]]


def tree(root: Path | str) -> Tree:
    """Path to what lies there, FIFOs and such skipped. Of the mode the one bit counts that every extractor keeps."""
    found: Tree = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(os.path.join(root, folder)) as listing:
            for item in listing:
                path = f"{folder}/{item.name}" if folder else item.name
                if item.is_symlink():
                    found[path] = ("link", os.readlink(item.path))
                elif item.is_dir():
                    found[path] = ("folder",)
                    folders.append(path)
                elif item.is_file():
                    found[path] = _file(item.path)
    return found


def _file(path: str) -> tuple[object, ...]:
    with open(path, "rb") as file:
        content = file.read()
        executable = bool(os.fstat(file.fileno()).st_mode & stat.S_IXUSR)
    return "file", hashlib.sha256(content).hexdigest(), executable


def lacking(wanted: Mapping[str, object], there: Mapping[str, object]) -> list[str]:
    """The wanted paths that are not there, or not as wanted."""
    return sorted(path for path, what in wanted.items() if there.get(path) != what)


def names_in(archive: Path) -> list[str]:
    """The archive's names in its order, read to its very end."""
    with tarfile.open(archive, "r:gz", errors="surrogateescape") as tar:
        return tar.getnames()
