"""Copies of a process's files as they are at any moment of its work."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path


def copy_as_it_is(folder: Path, target: Path, ignore: Callable[[str, list[str]], Iterable[str]] | None = None) -> Path:
    """Copy a folder in which threads are writing; what is renamed meanwhile may not be in the copy."""
    shutil.copytree(folder, target, symlinks=True, ignore=ignore, dirs_exist_ok=True, copy_function=_copy_if_there)
    return target


def _copy_if_there(file: str, target: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(file, target, follow_symlinks=False)
