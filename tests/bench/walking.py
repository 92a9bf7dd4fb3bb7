"""A full scan against other programs that walk a tree, with and without a large ignored folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection
from tests.bench.fixtures import TREES, Fixtures, lacks
from tests.bench.stopwatch import Elapsed, Stopwatch, command, fresh, shell
from tests.bench.table import Row, Skipped, compared

GIT = "git ls-files --exclude-standard"
IGNORED = "node_modules"
OTHERS = {
    "du -s": (("du",), "du -s {tree} >/dev/null"),
    GIT: (
        ("git",),
        "git --git-dir={git} --work-tree={tree} -C {tree} ls-files -o -c --exclude-standard >/dev/null",
    ),
}
LOOP = "os.scandir + stat"
BESIDE = {
    "du -s": "du -s --exclude=" + IGNORED + " {tree} >/dev/null",
    GIT: OTHERS[GIT][1],
}


def scanned(tree: str, times: int) -> list[Elapsed]:
    """Measure full scans of an unknown tree."""
    took = []
    for _ in range(times):
        watch = Stopwatch()
        Scanner(tree, Selection()).scan()
        took.append(watch.took())
    return took


def looped(tree: str, times: int) -> list[Elapsed]:
    """Measure the least that a walk in Python does: list and stat."""
    took = []
    for _ in range(times):
        watch = Stopwatch()
        stack = [tree]
        while stack:
            with os.scandir(stack.pop()) as items:
                for item in items:
                    item.stat(follow_symlinks=False)
                    if item.is_dir(follow_symlinks=False):
                        stack.append(item.path)
        took.append(watch.took())
    return took


def rows(fixtures: Fixtures) -> Iterator[Row | Skipped]:
    """Walking: a whole scan against du -s, git ls-files and a bare scandir loop; with as many ignored files beside."""
    letter = fixtures.sizes.trees[-1]
    tree = fixtures.tree(letter)
    # Its folder is elsewhere, so that the tree stays what it is.
    git = fixtures.scratch / "git"
    if not lacks("git"):
        command(("git", "init", "-q", "--bare", str(git)), env=_git_env())
    yield from _compared(fixtures, f"scan, {letter}", tree, git, {name: line for name, (_, line) in OTHERS.items()})
    beside = tree / IGNORED
    rules = tree / ".gitignore"
    rules.write_text(f"{IGNORED}/\n")
    try:
        for number in range(TREES[letter]):
            if not number % 100:
                folder = beside / str(number // 100)
                folder.mkdir(parents=True)
            (folder / str(number)).touch()
        yield from _compared(fixtures, f"scan, {letter}, {TREES[letter]:,} ignored beside", tree, git, BESIDE)
    finally:
        shutil.rmtree(beside)
        rules.unlink()


def _compared(fixtures: Fixtures, title: str, tree: Path, git: Path, lines: dict[str, str]) -> Iterator[Row | Skipped]:
    present = {name: line for name, line in lines.items() if not lacks(*OTHERS[name][0])}
    ours: list[Elapsed] = []
    theirs: dict[str, list[Elapsed]] = {name: [] for name in present}
    loops: list[Elapsed] = []
    for _ in range(fixtures.sizes.rounds):
        ours += fresh(scanned, str(tree), 3)
        for name, line in present.items():
            theirs[name] += [shell(line.format(tree=tree, git=git), env=_git_env()) for _ in range(3)]
        if lines is not BESIDE:
            loops += fresh(looped, str(tree), 3)
    mine = [took.wall_s for took in ours]
    for name, tools in ((name, tools) for name, (tools, _) in OTHERS.items()):
        if name in theirs:
            yield compared(f"{title}: wall", name, mine, [took.wall_s for took in theirs[name]])
        else:
            yield Skipped(f"{title}: wall", lacks(*tools))
    if loops:
        yield compared(f"{title}: wall", LOOP, mine, [took.wall_s for took in loops])


def _git_env() -> dict[str, str]:
    """Return an environment for git without the user's own excludes."""
    return {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
