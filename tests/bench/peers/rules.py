"""The rules of the comparison: values in, values out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from tests.bench.table import number, seconds

_FORM = "{:<16} {:>12} {:>12} {:>12} {:>14}  {}"
_NOT_MEASURED = "-"


@dataclass(frozen=True)
class Figures:
    """What a tool took for some edits: the seconds of each from the write to the arrival, and the sums of all.

    `quiet_s` is how long the tool waits on purpose; `wire_bytes` is None where nothing counts them.
    """

    took_s: Sequence[float]
    quiet_s: float
    cpu_s: float
    wire_bytes: int | None


def head() -> str:
    """Return the names of the columns, and the line below them."""
    widths = (16, 12, 12, 12, 14, 40)
    names = _FORM.format("tool", "edit to", "beyond the", "CPU", "on the wire", "")
    more = _FORM.format("", "arrival", "quiet time", "an edit", "an edit, bytes", "")
    return "\n".join((names.rstrip(), more.rstrip(), _FORM.format(*("-" * width for width in widths))))


def row(name: str, figures: Figures, note: str) -> str:
    """Return a tool's line: medians of the times, means of CPU and bytes."""
    edits, took_s = len(figures.took_s), median(figures.took_s)
    wire = _NOT_MEASURED if figures.wire_bytes is None else number(figures.wire_bytes / edits)
    cells = (seconds(took_s), seconds(took_s - figures.quiet_s), seconds(figures.cpu_s / edits), wire)
    return _FORM.format(name, *cells, note).rstrip()


def skipped(name: str, missing: Sequence[str]) -> str:
    """Return the line of a tool that needs commands which are not there."""
    what = "" if [each.lower() for each in missing] == [name.lower()] else f"{' and '.join(missing)} "
    return f"{name}: {what}not installed, skipped"


def failed(name: str, why: str) -> str:
    """Return the line of a tool that could not be measured."""
    return f"{name}: failed: {why}"


def title(files: int, size_bytes: int, edits: int, quiet_s: float, cores: int, load: float) -> str:
    """Return the sentences above the table: what was the same for all."""
    return (
        f"{files:,} files, {size_bytes / 1e6:,.1f} MB; {edits} edits of one line; quiet time {quiet_s:g} s; "
        f"{cores} cores, load {load:.1f} at the start\n"
        "From the write until the byte is there: medians. CPU of all its processes and bytes, both directions: means."
    )


class ProcessUsage(NamedTuple):
    """The session of a process, and its CPU ticks with those of the children it has waited for."""

    session: int
    ticks: int


def process_usage(stat: str) -> ProcessUsage:
    """Read a /proc/PID/stat (proc_pid_stat(5)). The command's name may hold spaces and brackets."""
    fields = stat.rpartition(")")[2].split()
    return ProcessUsage(int(fields[3]), sum(int(field) for field in fields[11:15]))


def session_ticks(usages: Iterable[ProcessUsage], sessions: frozenset[int]) -> int:
    """Return the CPU ticks of the processes in these sessions.

    What a child used is counted once: with itself while it lives, with its parent once that has waited for it.
    """
    return sum(usage.ticks for usage in usages if usage.session in sessions)
