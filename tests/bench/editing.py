"""A line added to one file: the time until the archive is ready to send, in trees of any size."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench import packing, snapshot_bench, trees
from tests.bench.fixtures import Fixtures, lacks
from tests.bench.stopwatch import Elapsed, fresh
from tests.bench.table import Row, Skipped, alone, compared

GOALS = {"named": ">= 300x", "scanned": ">= 40x"}
TITLES = {"named": "events trusted", "scanned": "all scanned"}


def rows(fixtures: Fixtures) -> Iterator[Row | Skipped]:
    """One-line edit, archive ready: events trusted, and the whole tree scanned, against tar czf of that tree."""
    for letter in fixtures.sizes.trees:
        tree = fixtures.tree(letter)
        victims = fixtures.once(f"victims {letter}", lambda tree=tree: trees.victims(tree))  # type: ignore[misc]
        costs: dict[str, list[Elapsed]] = {"named": [], "scanned": []}
        tar = packing.Figures()
        for _ in range(fixtures.sizes.rounds):
            found = fresh(snapshot_bench.edits, str(tree), str(fixtures.folder("spool")), fixtures.sizes.edits, victims)
            costs["named"] += found.named
            costs["scanned"] += found.scanned
            if not lacks("tar"):
                packing.rival(fixtures, letter, packing.GZIP, tar)
        for kind, took in costs.items():
            for unit, short in (("wall_s", "wall"), ("cpu_s", "CPU")):
                title = f"one edit, {letter}, {TITLES[kind]}: {short}"
                mine = [getattr(each, unit) for each in took]
                if not tar.whole:
                    yield alone(title, mine)
                    continue
                theirs = [getattr(each, unit) for each in tar.whole]
                goal = GOALS[kind] if (letter, short) == ("L", "wall") else ""
                yield compared(title, "tar czf", mine, theirs, goal=goal)
