"""Trees to measure on. Those of packages are files that this interpreter's library and installed packages ship.

They look like a dependency folder: sources, stubs, headers, metadata, data, shared objects. The largest are left out
until files average `MEAN_BYTES`, and compiled files are never taken. More files are made by further copies, each with a
line of its own at its end, so that no two are equal. Copies are megabytes apart, further than deflate or a chunk looks
back, so they compress no better than different files.
"""

from __future__ import annotations

import os
import random
import shutil
import sysconfig
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from statistics import mean

MEAN_BYTES = 14_000


def _shipped() -> Iterator[Path]:
    for top in dict.fromkeys(sysconfig.get_path(name) for name in ("stdlib", "purelib")):
        for folder, below, names in os.walk(top):
            below[:] = sorted(name for name in below if name not in {"__pycache__", "site-packages"})
            for name in sorted(names):
                path = Path(folder, name)
                if path.suffix != ".pyc" and path.is_file() and not path.is_symlink():
                    yield path


def _sources() -> list[Path]:
    """Return the files in a shuffled order that is always the same, so that a part of them is like the whole."""
    sizes = sorted((path.stat().st_size, str(path)) for path in _shipped())
    while len(sizes) > 1 and mean(size for size, _ in sizes) > MEAN_BYTES:
        del sizes[-max(1, len(sizes) // 1000) :]
    sources = [Path(path) for _, path in sizes]
    random.Random(0).shuffle(sources)
    return sources


def packages(folder: Path, files: int) -> Path:
    """Make a tree of so many files of packages."""
    sources = _sources()
    made = 0
    for copy in count():
        for source in sources:
            if made == files:
                return folder
            target = folder / f"copy{copy}" / Path(*source.parts[-4:])
            if target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            if copy:
                with open(target, "ab") as file:
                    file.write(b"# copy %d\n" % copy)
            made += 1
    return folder


def notes(folder: Path, files: int) -> Path:
    """Make a tree of so many small files, fifty a directory, to measure the cost of an entry."""
    for number in range(files):
        place = folder / f"{number // 2500}" / f"{number // 50}"
        if not number % 50:
            place.mkdir(parents=True)
        (place / f"{number}.txt").write_text(f"note {number}\n" * (10 + number % 50))
    return folder


def victims(folder: Path) -> list[str]:
    """Return the relative paths of files to edit, in order."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path.relative_to(folder).as_posix() for path in files if 2_000 < path.stat().st_size < 20_000]


def content_bytes(folder: Path) -> int:
    """Return the size of all its files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
