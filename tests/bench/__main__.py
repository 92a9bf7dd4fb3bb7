"""`python -m tests.bench`: syncd's speed as ratios against what a user could type instead, measured in one run.

Nothing here passes or fails. Each figure is a median over rounds that alternate between the two sides, since machines
are noisy: compare ratios, not seconds. Sizes of the trees are arguments: `python -m tests.bench 5000 50000`.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from syncd.base.clock import SystemClock
from tests.bench.trees import make_tree

ROUNDS = 3
CLOCK = SystemClock()


def timed(command: str) -> dict[str, float]:
    """Wall and CPU seconds of a shell line and all that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = CLOCK.monotonic_s()
    subprocess.run(command, shell=True, check=True)
    wall = CLOCK.monotonic_s() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def ours(tree: Path, scratch: Path) -> dict[str, list[dict[str, float]]]:
    spool = scratch / "spool"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir()
    said = subprocess.run(
        [sys.executable, "-m", "tests.bench.snapshots", str(tree), str(spool)], check=True, stdout=subprocess.PIPE
    )
    figures: dict[str, list[dict[str, float]]] = json.loads(said.stdout)
    return figures


def measure(files: int, scratch: Path) -> None:
    tree = make_tree(scratch / f"tree{files}", files)
    out = scratch / "out.tgz"
    rivals = {"tar czf": f"tar czf {out} -C {tree} .", "tar | gzip -1": f"tar cf - -C {tree} . | gzip -1 >{out}"}
    if shutil.which("pigz"):
        rivals["tar | pigz -1"] = f"tar cf - -C {tree} . | pigz -1 >{out}"
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in rivals}
    mine: list[dict[str, list[dict[str, float]]]] = []
    sizes = {}
    for _ in range(ROUNDS):
        mine.append(ours(tree, scratch))
        for name, command in rivals.items():
            runs[name].append(timed(command))
            sizes[name] = out.stat().st_size
    size = mine[-1]["bytes"]

    def of(kind: str, unit: str) -> float:
        return median(took[unit] for run in mine for took in run[kind])

    def them(name: str, unit: str) -> float:
        return median(took[unit] for took in runs[name])

    print(f"\n{mine[-1]['files']} entries, archive {size / 1e6:.1f} MB")  # type: ignore[operator]
    print(f"  {'':22}{'first snapshot':>24}{'one edit, all scanned':>26}{'one edit, named':>20}{'size':>8}")
    for name in rivals:
        cells = [f"{them(name, u) / of('first', u):.1f}x {u}" for u in ("wall", "cpu")]
        scanned, named = (them(name, "wall") / of(kind, "wall") for kind in ("scanned", "named"))
        ratio = size / sizes[name]  # type: ignore[operator]
        print(f"  {name:22}{'  '.join(cells):>24}{f'{scanned:.0f}x wall':>26}{f'{named:.0f}x wall':>20}{ratio:8.2f}")
    seconds = [f"{of(kind, 'wall') * 1000:.0f} ms" for kind in ("first", "scanned", "named")]
    spread = [max(t["wall"] for t in runs["tar czf"]) / min(t["wall"] for t in runs["tar czf"])]
    print(f"  {'ours':22}{seconds[0]:>24}{seconds[1]:>26}{seconds[2]:>20}   tar's own spread {spread[0]:.2f}x")


def start_up() -> None:
    def once(arguments: list[str]) -> Callable[[], float]:
        return lambda: timed(" ".join([sys.executable, *arguments, ">/dev/null"]))["wall"]

    version, bare = once(["-m", "syncd", "--version"]), once(["-c", "pass"])
    pairs = [(version(), bare()) for _ in range(9)]
    ours_ms, bare_ms = (median(pair[i] for pair in pairs) * 1000 for i in (0, 1))
    print(f"\nsyncd --version {ours_ms:.0f} ms, python -c pass {bare_ms:.0f} ms")


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or [1_000, 10_000]
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}; medians of {ROUNDS} alternating rounds")
    with tempfile.TemporaryDirectory(prefix="syncd-bench-") as scratch:
        for files in sizes:
            measure(files, Path(scratch))
    start_up()


if __name__ == "__main__":
    main()
