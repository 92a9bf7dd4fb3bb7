"""The cost of an idle daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.bench import inotifywait
from tests.bench.daemon import running
from tests.bench.fixtures import Fixtures, lacks
from tests.bench.stopwatch import CLOCK, process_cpu_s, status_kib
from tests.bench.table import Row, Skipped, alone, compared, mebibytes, number, seconds


class _Usage(NamedTuple):
    ticks: float
    switches: float
    cpu_s: float

    @classmethod
    def of(cls, pid: int) -> _Usage:
        """Return the usage of the process and its threads so far."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        switches = 0
        for task in os.listdir(f"/proc/{pid}/task"):
            switches += status_kib("voluntary_ctxt_switches", f"{pid}/task/{task}")
            switches += status_kib("nonvoluntary_ctxt_switches", f"{pid}/task/{task}")
        return cls(int(fields[11]) + int(fields[12]), switches, process_cpu_s(pid))


def rows(fixtures: Fixtures) -> Iterator[Row | Skipped]:
    """Idle: CPU ticks, context switches and resident memory of a daemon with nothing to do, against inotifywait."""
    tree = fixtures.tree(fixtures.sizes.trees[0])
    title = f"idle {fixtures.sizes.idle_s:g} s, {fixtures.sizes.trees[0]}"
    with ExitStack() as stack:
        _, _, pid = stack.enter_context(running(fixtures.folder("idle"), tree))
        pids = [pid]
        if not lacks("inotifywait"):
            pids.append(stack.enter_context(inotifywait.watching(tree)).pid)
        before = [_Usage.of(each) for each in pids]
        CLOCK.sleep(fixtures.sizes.idle_s)  # time going by is what is measured here
        used = [
            _Usage(*(now - then for now, then in zip(_Usage.of(each), was, strict=True)))
            for each, was in zip(pids, before, strict=True)
        ]
        memory = [status_kib("VmRSS", each) * 1024 for each in pids]
    for name, unit, figures, goal in (
        ("CPU", seconds, [use.cpu_s for use in used], ""),
        ("CPU ticks", number, [use.ticks for use in used], "0"),
        ("context switches", number, [use.switches for use in used], "0"),
        ("resident memory", mebibytes, memory, ""),
    ):
        if len(figures) > 1:
            yield compared(f"{title}: {name}", inotifywait.NAME, figures[:1], figures[1:], unit=unit, goal=goal)
        else:
            yield alone(f"{title}: {name}", figures, unit=unit, goal=goal)
