"""What work costs, and a table of it: our figures, and those of what a user could type instead."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import ParamSpec, TypeVar

from syncd.core.clock import SystemClock
from tools.bench import trees

CLOCK = SystemClock()
REPO = Path(__file__).resolve().parent.parent.parent
TREES = {"S": 200, "M": 5_000, "L": 50_000}
# What was measured, by its name in the table.
Figures = dict[str, float]

Given = ParamSpec("Given")
Result = TypeVar("Result")


@dataclass
class Bench:
    """One run: a scratch folder, and what was asked for."""

    scratch: Path
    asked: argparse.Namespace
    _trees: dict[str, Path] = field(default_factory=dict)

    def letters(self, *among: str) -> list[str]:
        """Return those of these trees that are asked for."""
        return [letter for letter in among if letter in self.asked.trees]

    def rounds(self) -> Iterable[int]:
        return range(self.asked.rounds)

    def tree(self, letter: str) -> Path:
        """Return the tree S, M or L of installed packages, made once."""
        if letter not in self._trees:
            self._trees[letter] = trees.packages(self.scratch / f"tree{letter}", TREES[letter])
            os.sync()  # or the kernel still writes it out while the first rival is timed
        return self._trees[letter]

    def folder(self, name: str) -> Path:
        """Return an empty folder."""
        path = self.scratch / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


class Stopwatch:
    """Measures from its creation; its CPU time is that of this process, all threads."""

    def __init__(self) -> None:
        self._wall_s = CLOCK.monotonic_s()
        self._cpu_s = time.process_time()

    def took(self) -> Figures:
        return {"wall": CLOCK.monotonic_s() - self._wall_s, "CPU": time.process_time() - self._cpu_s}


def shell(line: str, env: Mapping[str, str] | None = None) -> Figures:
    """Run a shell line in the checkout, the shell's own start included. Raises CalledProcessError."""
    started_s = CLOCK.monotonic_s()
    process = subprocess.Popen(("sh", "-c", line), cwd=REPO, env=env, stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = CLOCK.monotonic_s() - started_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, line)
    return {"wall": wall_s, "CPU": usage.ru_utime + usage.ru_stime}


def fresh(function: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
    """Return the function's result from a new interpreter, without this one's garbage and memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def memory_bytes(label: str) -> int:
    """Return `VmRSS` or `VmHWM` of this process."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{label}:")[2].split()[0]) * 1024


def lacks(*tools: str) -> list[str]:
    """Return which of these commands are not installed."""
    return [tool for tool in tools if shutil.which(tool) is None]


def installed(rivals: Mapping[str, Sequence[str]], title: str) -> list[str]:
    """Return the rivals whose commands are all there; tell of the others."""
    for name, tools in rivals.items():
        if missing := lacks(*tools):
            print(f"{title}: {name}: {' and '.join(missing)} not installed, skipped", flush=True)
    return [name for name, tools in rivals.items() if not lacks(*tools)]


def seconds(value: float) -> str:
    if value >= 10:
        return f"{value:.1f} s"
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.0f} ms" if value >= 0.1 else f"{value * 1e3:.1f} ms"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.1f} MB"


def _number(value: float) -> str:
    return f"{value:,.0f}"


# Anything else is in seconds.
_UNITS: dict[str, Callable[[float], str]] = {
    "size": _megabytes,
    "memory": _megabytes,
    "wall an entry": lambda value: f"{value * 1e6:.2f} us",
    **dict.fromkeys(("bytes", "requests", "wake-ups", "modules", "functions"), _number),
}
_FORM = "{:<46} {:<26} {:>10} {:>10} {:>8} {:>7} {:>6}"


def head() -> None:
    """Print the names of the columns."""
    print(_FORM.format("measure", "rival", "ours", "rival's", "ratio", "goal", "noise").rstrip())
    print(_FORM.format(*("-" * width for width in (46, 26, 10, 10, 8, 7, 6))), flush=True)


def show(
    title: str,
    ours: Sequence[Figures],
    rivals: Mapping[str, Sequence[Figures]] | None = None,
    goals: Mapping[str, str] | None = None,
) -> None:
    """Print a line for each figure and each rival that has it; a figure that no rival has gets a line of its own.

    Figures are medians. A ratio is the rival's by ours, so more is better; noise is the largest of the rival's by its
    least, or of ours where there is no rival.
    """
    for what in ours[0]:
        unit, mine = _UNITS.get(what, seconds), [each[what] for each in ours]
        goal, measure = (goals or {}).get(what, ""), f"{title}: {what}"
        compared = {name: [each[what] for each in found] for name, found in (rivals or {}).items() if what in found[0]}
        for name, theirs in compared.items():
            ratio = median(theirs) / median(mine) if median(mine) else 0
            places = 0 if ratio >= 100 else 1 if ratio >= 10 else 2
            cells = (unit(median(mine)), unit(median(theirs)), f"{ratio:.{places}f}x", goal, _noise(theirs))
            print(_FORM.format(measure, name, *cells).rstrip(), flush=True)
        if not compared:
            print(_FORM.format(measure, "", unit(median(mine)), "", "", goal, _noise(mine)).rstrip(), flush=True)


def _noise(figures: Sequence[float]) -> str:
    return f"{max(figures) / min(figures):.2f}" if min(figures) > 0 else ""
