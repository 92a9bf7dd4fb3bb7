"""Trees of rising size, to show that the cost of a file does not rise."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from statistics import median

from tests.bench import snapshot_bench, trees
from tests.bench.fixtures import Fixtures
from tests.bench.stopwatch import Elapsed, fresh
from tests.bench.table import Row, Skipped, alone, compared, microseconds

# So many files are measured once, whatever the rounds.
ONE_ROUND = 500_000
TITLES = {"first": "first snapshot", "scanned": "one edit, scanned", "named": "one edit, named"}


def rows(fixtures: Fixtures) -> Iterator[Row | Skipped]:
    """Linear cost: microseconds an entry in trees of small files of rising number."""
    least: dict[str, list[float]] = {}
    for files in sorted(fixtures.sizes.series):
        tree = trees.notes(fixtures.folder("notes"), files)
        victims = [f"{number // 2500}/{number // 50}/{number}.txt" for number in range(0, files, 41)]
        costs: dict[str, list[float]] = {kind: [] for kind in TITLES}
        rounds = fixtures.sizes.rounds
        if files >= ONE_ROUND and rounds > 1:
            rounds = 1
            yield Skipped(f"more than one round of {files:,} files", "a round takes minutes")
        for _ in range(rounds):
            found = fresh(snapshot_bench.edits, str(tree), str(fixtures.folder("spool")), fixtures.sizes.edits, victims)
            kinds: dict[str, list[Elapsed]] = {"first": [found.first], "scanned": found.scanned, "named": found.named}
            for kind, took in kinds.items():
                costs[kind].append(median(each.wall_s for each in took) / found.entries)
        for kind, mine in costs.items():
            title = f"{TITLES[kind]}, an entry of {files:,}: wall"
            if kind not in least:
                least[kind] = mine
                yield alone(title, mine, unit=microseconds)
            else:
                rival = f"the same, {min(fixtures.sizes.series):,} files"
                yield compared(title, rival, mine, least[kind], unit=microseconds, goal=">= 0.8x")
        shutil.rmtree(tree)
