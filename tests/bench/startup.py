"""The start-up cost of a command."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tests.bench.daemon import DaemonHome
from tests.bench.fixtures import Fixtures
from tests.bench.stopwatch import Elapsed, shell
from tests.bench.table import Row, Skipped, compared

BARE = "python -c pass"
COMMANDS = ("syncd --version", "syncd status")
TIMES = 4


def rows(fixtures: Fixtures) -> Iterator[Row | Skipped]:
    """Start-up: `syncd --version` and `syncd status`, with no daemon running, against `python -c pass`."""
    daemon_home = DaemonHome(fixtures.folder("startup"), fixtures.tree("S"), "http://127.0.0.1:9")
    took: dict[str, list[Elapsed]] = {BARE: [], **{name: [] for name in COMMANDS}}
    for _ in range(fixtures.sizes.rounds * TIMES):
        for name, costs in took.items():
            words = name.replace("syncd", "-m syncd").removeprefix("python ")
            costs.append(shell(f"{sys.executable} {words} >/dev/null", env=daemon_home.environment()))
    for name in COMMANDS:
        for unit, short in (("wall_s", "wall"), ("cpu_s", "CPU")):
            mine, theirs = ([getattr(each, unit) for each in took[which]] for which in (name, BARE))
            yield compared(f"{name}: {short}", BARE, mine, theirs)
