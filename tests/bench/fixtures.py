"""The settings of the measurements: sizes, rounds, a scratch folder, and shared trees."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.bench import trees

TREES = {"S": 200, "M": 5_000, "L": 50_000}
Made = TypeVar("Made")


@dataclass(frozen=True)
class Sizes:
    """The sizes of the measurements; every number is an option of the command."""

    rounds: int
    trees: tuple[str, ...]
    directories: int
    events: int
    edits: int
    idle_s: float
    upload_mib: int
    series: tuple[int, ...]
    uplink_mbit: float
    peer_files: tuple[int, ...]
    peers: tuple[str, ...]
    peer_edits: int
    peer_quiet_s: float
    peer_limit_s: float


@dataclass
class Fixtures:
    """One run's scratch folder and its contents."""

    scratch: Path
    sizes: Sizes
    _made: dict[str, object] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """Return what `make` returned at the first call: a tree, or figures for several rows."""
        if name not in self._made:
            self._made[name] = make()
        found: Made = self._made[name]  # type: ignore[assignment]
        return found

    def tree(self, letter: str) -> Path:
        """Return the tree S, M or L of installed packages."""

        def make() -> Path:
            made = trees.packages(self.scratch / f"tree{letter}", TREES[letter])
            os.sync()  # or the kernel still writes it out while the first rival is timed
            return made

        return self.once(f"tree {letter}", make)

    def folder(self, name: str) -> Path:
        """Return an empty folder."""
        path = self.scratch / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


def lacks(*tools: str) -> str:
    """Return which of these commands are not installed, in words; empty if all are."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not installed" if missing else ""
