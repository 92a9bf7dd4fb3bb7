"""`python -m tools.bench`: syncd's speed as ratios against what a user could type instead, measured in one run."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools.bench import archives, daemons, peers, reading, walk
from tools.bench.measure import TREES, Bench, head

ROWS: dict[str, Callable[[Bench], None]] = {
    "packing": archives.packing,
    "editing": archives.editing,
    "series": archives.series,
    "scanning": reading.scanning,
    "edit": daemons.edit,
    "idle": daemons.idle,
    "startup": daemons.startup,
    "walk": walk.walk,
    "peers": peers.peers,
}


def _arguments() -> argparse.Namespace:
    rows = "\n".join(f"  {name:<10} {each.__doc__}" for name, each in ROWS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"""{__doc__}

Nothing here passes or fails. Each figure is a median over rounds that alternate between the two sides, since machines
are noisy: compare ratios, not seconds. A ratio is the rival's figure by ours, so above 1 we are better; noise is the
largest of the rival's figures by its least (where there is no rival, of ours). Ours are without the start of Python,
which a daemon pays once, but in "startup".

The trees are files that Python and its installed packages ship, some 14 kB each; see tools/bench/trees.py. They are
made anew in the temporary folder (2 GB for L), and are in memory when they are read. What is not installed is skipped.

rows:
{rows}""",
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="which rows; all if none is named")
    parser.add_argument("--trees", nargs="+", choices=TREES, default=[*TREES], help="S 200, M 5,000, L 50,000 files")

    def option(name: str, kind: type, default: object, metavar: str, what: str, nargs: str | None = None) -> None:
        parser.add_argument(
            name, type=kind, default=default, metavar=metavar, help=f"{what} (%(default)s)", nargs=nargs
        )

    option("--rounds", int, 3, "TIMES", "rounds a figure")
    option("--edits", int, 5, "TIMES", "edits of each kind a round")
    option("--idle", float, 60.0, "SECONDS", "how long to see it idle")
    option("--uplink", float, 20.0, "MBIT", "speed of the slow uplink")
    option("--series", int, [1_000, 10_000, 100_000], "FILES", "sizes of the series; 1000000 needs 5 GB of disk", "+")
    option("--peers", str, [], "NAME", "which peers, by the beginnings of their names; all if none is named", "+")
    option("--peer-files", int, [5_000], "FILES", "sizes of the peers' trees", "+")
    option("--peer-edits", int, 10, "TIMES", "edits that are timed of each peer")
    option("--peer-quiet", float, 1.0, "SECONDS", "quiet time of each peer that has one")
    option("--peer-limit", float, 600.0, "SECONDS", "a peer that takes longer has failed")
    arguments = parser.parse_args()
    for name in arguments.rows:
        if name not in ROWS:
            parser.error(f"no row is named {name!r}; there are {', '.join(ROWS)}")
    return arguments


def main() -> None:
    """Measure what is asked for, and print the table as it grows."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that what was started is ended
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}\n")
    head()
    with tempfile.TemporaryDirectory(prefix="syncd-bench-") as scratch:
        bench = Bench(Path(scratch), asked)
        for name in asked.rows or ROWS:
            try:
                ROWS[name](bench)
            except Exception as failure:  # one measure that fails must not cost the figures of the others
                print(f"{name} failed: {failure!r}", flush=True)


if __name__ == "__main__":
    main()
