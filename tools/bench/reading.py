"""Scans of a large tree, by itself and beside an ignored one."""

from __future__ import annotations

import os
import shutil

from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection
from tools.bench import trees
from tools.bench.measure import TREES, Bench, Figures, Stopwatch, fresh, installed, shell, show

_GIT = "git ls-files --exclude-standard"
_IGNORED = "node_modules"


def _scanned(tree: str, times: int) -> list[Figures]:
    took = []
    for _ in range(times):
        watch = Stopwatch()
        Scanner(tree, Selection()).scan()
        took.append(watch.took())
    return took


def scanning(bench: Bench) -> None:
    """A whole scan against du -s and git ls-files, and with as many ignored files beside."""
    letter = bench.asked.trees[-1]
    tree, git = bench.tree(letter), bench.folder("git")  # a folder elsewhere, so that the tree stays what it is
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    title = f"scan, {letter}"
    rivals = installed({"du -s": ("du",), _GIT: ("git",)}, title)
    lines = {
        "du -s": f"du -s --exclude={_IGNORED} {tree} >/dev/null",
        _GIT: f"git --git-dir={git} --work-tree={tree} -C {tree} ls-files -o -c --exclude-standard >/dev/null",
    }
    if _GIT in rivals:
        shell(f"git init -q --bare {git}", env)

    def compare(title: str) -> None:
        ours: list[Figures] = []
        theirs: dict[str, list[Figures]] = {name: [] for name in rivals}
        for _ in bench.rounds():
            ours.extend(fresh(_scanned, str(tree), 3))
            for name, costs in theirs.items():
                costs.extend(shell(lines[name], env) for _ in range(3))
        show(title, ours, theirs)

    compare(title)
    (tree / ".gitignore").write_text(f"{_IGNORED}/\n")
    trees.notes(tree / _IGNORED, TREES[letter])
    compare(f"{title}, {TREES[letter]:,} ignored beside")
    shutil.rmtree(tree / _IGNORED)
    (tree / ".gitignore").unlink()
