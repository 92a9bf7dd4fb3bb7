"""`python -m tests.bench`: syncd's speed as ratios against what a user could type instead, measured in one run."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import (
    agent_side,
    editing,
    idle,
    latency,
    packing,
    series,
    slow_line,
    startup,
    upload,
    walking,
    watching,
)
from tests.bench.fixtures import TREES, Fixtures, Sizes
from tests.bench.peers import comparison
from tests.bench.table import Line, Printer, Row, Skipped

Rows = Callable[[Fixtures], Iterator[Row | Skipped] | Iterator[Line]]

ROWS: dict[str, Rows] = {
    "packing": packing.rows,
    "uplink": packing.uplink_rows,
    "editing": editing.rows,
    "walking": walking.rows,
    "watching": watching.rows,
    "latency": latency.rows,
    "agent": agent_side.rows,
    "idle": idle.rows,
    "startup": startup.rows,
    "upload": upload.rows,
    "line": slow_line.rows,
    "series": series.rows,
    "peers": comparison.rows,
}


def _arguments() -> argparse.Namespace:
    rows = "\n".join(f"  {name:<10} {each.__doc__}" for name, each in ROWS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"""{__doc__}

Nothing here passes or fails. Each figure is a median over rounds that alternate between the two sides, since machines
are noisy: compare ratios, not seconds. A ratio is the rival's figure by ours, so above 1 we are better; noise is the
largest of the rival's figures by its least (where there is no rival, of ours). "process" is a whole process, as the
rival's is; "inside" is the same without the start and end of Python, which a daemon pays once. "last byte" adds what
the uplink takes for the archive; a pipe sends while it packs, so of the rival the slower of both counts.

The trees are files that Python and its installed packages ship, some 14 kB each; see tests/bench/trees.py. They are
made anew in the temporary folder (2 GB for L), and are in memory when they are read. What is not installed is skipped.

"peers" is a table of its own: the same tree, edits and quiet time for each tool, one after the other, in temporary
folders and a home of its own. Its times are from the write until the byte is there.

rows:
{rows}""",
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="which rows; all if none is named")
    parser.add_argument("--rounds", type=int, default=3, help="rounds a figure (3)")
    parser.add_argument(
        "--trees",
        nargs="+",
        choices=TREES,
        default=list(TREES),
        help="S 200, M 5,000, L 50,000 files (all)",
    )
    parser.add_argument("--edits", type=int, default=5, help="edits of each kind a round (5)")
    parser.add_argument("--directories", type=int, default=50_000, help="directories to watch, and to ignore (50000)")
    parser.add_argument("--events", type=int, default=200_000, help="events of the burst (200000)")
    parser.add_argument("--idle", type=float, default=60.0, metavar="SECONDS", help="how long to see it idle (60)")
    parser.add_argument("--upload", type=int, default=256, metavar="MIB", help="size of the upload (256)")
    parser.add_argument("--uplink", type=float, default=20.0, metavar="MBIT", help="the slow uplink's speed (20)")
    parser.add_argument(
        "--series",
        type=int,
        nargs="+",
        default=[1_000, 10_000, 100_000],
        metavar="FILES",
        help="sizes of the series (1000 10000 100000); 1000000 needs 5 GB of disk",
    )
    parser.add_argument(
        "--peer-files", type=int, nargs="+", default=[5_000], metavar="FILES", help="sizes of the peers' trees (5000)"
    )
    parser.add_argument(
        "--peers", nargs="+", default=[], metavar="NAME", help="which peers, by the beginnings of their names (all)"
    )
    parser.add_argument("--peer-edits", type=int, default=10, help="edits that are timed of each peer (10)")
    parser.add_argument(
        "--peer-quiet", type=float, default=1.0, metavar="SECONDS", help="quiet time of each peer that has one (1)"
    )
    parser.add_argument(
        "--peer-limit", type=float, default=600.0, metavar="SECONDS", help="a peer that takes longer has failed (600)"
    )
    arguments = parser.parse_args()
    for name in arguments.rows:
        if name not in ROWS:
            parser.error(f"no row is named {name!r}; there are {', '.join(ROWS)}")
    return arguments


def main() -> None:
    """Measure what is asked for, and print the table as it grows."""
    asked = _arguments()
    sizes = Sizes(
        rounds=asked.rounds,
        trees=tuple(letter for letter in TREES if letter in asked.trees),
        directories=asked.directories,
        events=asked.events,
        edits=asked.edits,
        idle_s=asked.idle,
        upload_mib=asked.upload,
        series=tuple(asked.series),
        uplink_mbit=asked.uplink,
        peer_files=tuple(asked.peer_files),
        peers=tuple(asked.peers),
        peer_edits=asked.peer_edits,
        peer_quiet_s=asked.peer_quiet,
        peer_limit_s=asked.peer_limit,
    )
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that what was started is ended
    python = sys.version.split()[0]
    print(f"{os.cpu_count()} cores, Python {python}; ratios: medians of {sizes.rounds} alternating rounds\n")
    printer = Printer()
    with tempfile.TemporaryDirectory(prefix="syncd-bench-") as scratch:
        fixtures = Fixtures(Path(scratch), sizes)
        for name in asked.rows or ROWS:
            try:
                printer.print(ROWS[name](fixtures))
            except Exception as failure:  # one measure that fails must not cost the figures of the others
                print(f"{name} failed: {failure!r}", flush=True)


if __name__ == "__main__":
    main()
