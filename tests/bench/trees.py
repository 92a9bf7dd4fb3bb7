"""Trees to measure on: the Python files that this interpreter's own library and installed packages ship."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from itertools import count
from pathlib import Path


def _sources() -> Iterator[Path]:
    for name in ("stdlib", "purelib"):
        for folder, _, names in os.walk(sysconfig.get_path(name)):
            if "__pycache__" not in folder:
                yield from (Path(folder) / file for file in sorted(names) if file.endswith((".py", ".pyi", ".txt")))


def make_tree(folder: Path, files: int) -> Path:
    """So many files in as many copies of the same packages as it takes."""
    sources = list(_sources())
    made = 0
    for copy in count():
        for source in sources:
            if made == files:
                return folder
            target = folder / f"copy{copy}" / Path(*source.parts[-4:])
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copyfile(source, target)
                made += 1
    return folder
