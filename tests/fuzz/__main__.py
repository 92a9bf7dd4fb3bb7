"""`python -m tests.fuzz`: lives as many random stories as asked for, and prints what happened in them."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.operations import gives_numbers_again
from tests.fuzz.scenario import parsed
from tests.integration.convergence import MACHINE, Cloud, lived, lived_batch
from tests.system.scenarios import lived_by_processes

REPO = Path(__file__).resolve().parents[2]
BATCH = 20
MOST_REPORTS = 5


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--schedules", type=int, default=1000, metavar="N", help="how many stories (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first of them; the others' follow (0)")
    parser.add_argument("--processes", action="store_true", help="with the real command, in the machine's own time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time (one a core)")
    parser.add_argument(
        "--dir",
        type=Path,
        help="where, to try a file system (the folder for temporary files, or this checkout: see `_place`)",
    )
    parser.add_argument("--story", type=Path, metavar="FILE", help="live the one that was printed, and show it")
    return parser.parse_args()


def _place(asked: Path | None) -> str:
    """Where stories are lived: if nothing else is asked for, where an inode number tells little, as on most disks."""
    places = [Path(tempfile.gettempdir()), REPO] if asked is None else [asked]
    place = next(filter(gives_numbers_again, places), places[0])
    if not gives_numbers_again(place):
        print(
            f"{place} never gives an inode number again, as tmpfs does not: what that brings about is not tried",
            file=sys.stderr,
        )
    return str(place)


def _one(text: str, folder: str) -> int:
    with tempfile.TemporaryDirectory(dir=folder, prefix="story-") as name, Cloud(Path(name) / "cloud") as cloud:
        world = lived(cloud, Path(name) / "it", parsed(text), Counter())
    print("\n".join([*world.log, "", *(world.lost or ["nothing was lost"])]))
    return 1 if world.lost else 0


def _batches(asked: argparse.Namespace, folder: str) -> Iterator[tuple[str, list[int]]]:
    seeds = range(asked.seed, asked.seed + asked.schedules)
    size = 1 if asked.processes else BATCH
    for start in range(0, len(seeds), size):
        yield folder, list(seeds[start : start + size])


def main() -> int:
    """Exit 1 if anything was lost."""
    asked = _arguments()
    folder = _place(asked.dir)
    if asked.story is not None:
        return _one(asked.story.read_text("utf-8", "surrogateescape"), folder)
    started_s = MACHINE.monotonic_s()
    total: Counter[str] = Counter()
    shown = 0
    with multiprocessing.get_context("spawn").Pool(asked.jobs) as pool:
        batch = lived_by_processes if asked.processes else lived_batch
        for figures, reports in pool.imap_unordered(batch, _batches(asked, folder)):
            total += figures
            for each in reports:
                shown += 1
                if shown <= MOST_REPORTS:
                    print(f"{each}\n", flush=True)
    seconds = MACHINE.monotonic_s() - started_s
    print(f"{seconds:.1f} s, {total['stories'] / seconds:.1f} stories a second, {total['losses']} lost")
    print(", ".join(f"{count:,} {name}" for name, count in total.most_common() if name != "losses"))
    return 1 if total["losses"] else 0


if __name__ == "__main__":
    sys.exit(main())
