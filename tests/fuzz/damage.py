"""Damage to the files that the daemon keeps on disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def damage(top: Path, where: str, how: str, number: int) -> None:
    """Damage one file below `top`, which is the "spool" or the "state". Raises `OSError`."""
    # What SQLite maps into memory is no content: it is made anew, and whoever cuts it ends the process that maps it.
    files = sorted(
        path for path in top.rglob("*") if path.is_file() and path.name != "lock" and path.suffix != ".db-shm"
    )
    if not files:
        return
    file = files[number % len(files)]
    content = bytearray(file.read_bytes())
    match how:
        case "flip" if content:
            content[(number * 997) % len(content)] ^= 4
            file.write_bytes(content)
        case "cut":
            os.truncate(file, len(content) // 2)
        case "drop":
            file.unlink()
        case "foreign":
            file.write_bytes(b"something else\n" * 20)
        case "folder" if where == "spool":
            file.unlink()
            file.mkdir()
        case "empty" if where == "spool":
            shutil.rmtree(top)
