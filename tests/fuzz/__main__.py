"""`python -m tests.fuzz` runs random scenarios, and prints figures, what was lost, and the digest of all courses.

Two runs of the same scenarios print the same digest: in scripted time, a seed says all that happens.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tests.fuzz.clock import MACHINE
from tests.fuzz.runner import begin_process, digest, limited, run, run_seed
from tests.fuzz.scenario import parse
from tests.fuzz.several import run_several
from tests.inodes import reuses_inode_numbers

MOST_REPORTS = 5
# Half of a story's time on a disk is that of the disk: all but each ninth are in memory.
MEMORY, ON_DISK_EACH = Path("/dev/shm"), 9


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--schedules", type=int, default=1000, metavar="N", help="how many scenarios (1000)")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first scenario (0)")
    parser.add_argument("--several", action="store_true", help="stories of one to three sandboxes, by the real command")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time (one a core)")
    parser.add_argument(
        "--dir",
        type=Path,
        help="the folder to run in, to try a file system (most in memory, the rest on a disk: see `_places`)",
    )
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="run a printed scenario, and show its log")
    return parser.parse_args()


def _places(asked: Path | None) -> tuple[str, str]:
    """Return the folders to run in: by default one in memory, and one on a disk that reuses inode numbers, as most do.

    They are not this checkout: a story makes branches in the repository around its workspace.
    """
    disks = [Path(tempfile.gettempdir()), Path.home()] if asked is None else [asked]
    disk = next(filter(reuses_inode_numbers, disks), disks[0])
    if not reuses_inode_numbers(disk):
        print(
            f"{disk} does not reuse inode numbers (tmpfs?): scenarios that need that try nothing there", file=sys.stderr
        )
    in_memory = asked is None and os.access(MEMORY, os.W_OK)
    return str(MEMORY if in_memory else disk), str(disk)


def _commit() -> str:
    """Return what is run: a seed gives another story once the generators have changed."""
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "a copy without git"


def _run_one(text: str, folder: str) -> int:
    with tempfile.TemporaryDirectory(dir=folder, prefix="scenario-") as name:
        simulation = run(Path(name) / "simulation", parse(text), Counter())
    print("\n".join([*simulation.log, "", *(simulation.lost or ["nothing was lost"])]))
    print(f"course {digest(simulation.course)}")
    return 1 if simulation.lost else 0


def main() -> int:
    """Return 1 if anything was lost."""
    asked = _arguments()
    memory, disk = _places(asked.dir)
    if asked.scenario is not None:
        return _run_one(asked.scenario.read_text("utf-8", "surrogateescape"), disk)
    started_s = MACHINE.monotonic_s()
    commit = _commit()
    total: Counter[str] = Counter()
    courses: list[str] = []
    shown = 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_one = run_several if asked.several else run_seed
    seeds = range(asked.seed, asked.seed + asked.schedules)
    with (
        tempfile.TemporaryDirectory(dir=memory, prefix="scenarios-", ignore_cleanup_errors=True) as in_memory,
        tempfile.TemporaryDirectory(dir=disk, prefix="scenarios-", ignore_cleanup_errors=True) as on_disk,
        # Unlike a pool of `multiprocessing`, it notices a process that dies, and does not wait for what that ran.
        ProcessPoolExecutor(asked.jobs, multiprocessing.get_context("spawn"), begin_process) as pool,
    ):
        try:
            places = ((in_memory if seed % ON_DISK_EACH else on_disk, seed) for seed in seeds)
            for figures, reports, course in pool.map(partial(limited, run_one), places):
                total += figures
                courses.append(course)
                for each in reports:
                    shown += 1
                    if shown <= MOST_REPORTS:
                        print(f"at {commit}, {each}\n", flush=True)
        except KeyboardInterrupt:  # the scenarios under way fail where they are
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it comes twice, from a parent and to the group
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                os.kill(process.pid or 0, signal.SIGALRM)
    seconds = MACHINE.monotonic_s() - started_s
    course = "" if asked.several else f"; course {digest(courses)}"
    print(f"{len(courses)} of {len(seeds)} scenarios from seed {asked.seed} on, at {commit}{course}")
    print(f"{seconds:.1f} s, {total['scenarios'] / seconds:.1f} scenarios a second, {total['losses']} lost")
    print(", ".join(f"{count:,} {name}" for name, count in total.most_common() if name != "losses"))
    return 1 if total["losses"] else 0


if __name__ == "__main__":
    sys.exit(main())
