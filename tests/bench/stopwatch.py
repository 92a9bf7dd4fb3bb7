"""The cost of a process: wall seconds, and CPU seconds of it and of its children."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from syncd.core.clock import SystemClock

CLOCK = SystemClock()
REPO = Path(__file__).resolve().parent.parent.parent

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Elapsed(NamedTuple):
    """The cost of some work, in seconds."""

    wall_s: float
    cpu_s: float


class Stopwatch:
    """Measures from its creation; its CPU time is that of this process, all threads."""

    def __init__(self) -> None:
        self._wall_s = CLOCK.monotonic_s()
        self._cpu_s = time.process_time()

    def took(self) -> Elapsed:
        return Elapsed(CLOCK.monotonic_s() - self._wall_s, time.process_time() - self._cpu_s)


def command(argv: Sequence[str], env: dict[str, str] | None = None, stdout: int | None = None) -> Elapsed:
    """Run a command in the checkout. Raises `CalledProcessError`."""
    started_s = CLOCK.monotonic_s()
    process = subprocess.Popen(argv, cwd=REPO, env=env, stdin=subprocess.DEVNULL, stdout=stdout)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = CLOCK.monotonic_s() - started_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(argv))
    return Elapsed(wall_s, usage.ru_utime + usage.ru_stime)


def shell(line: str, env: dict[str, str] | None = None) -> Elapsed:
    """Run a shell line, the shell's own start included."""
    return command(["sh", "-c", line], env)


def fresh(function: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
    """Return the function's result from a new interpreter, without this one's garbage and memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def status_kib(label: str, pid: int | str = "self") -> int:
    """Return a number of /proc/PID/status, as `VmRSS` or `VmHWM`, or a count of switches."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{label}:"):
            return int(line.split()[1])
    raise KeyError(label)


def process_cpu_s(pid: int) -> float:
    """Return a running process's CPU seconds, by its threads' scheduler statistics (nanoseconds)."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((tasks / task / "schedstat").read_text().split()[0]) for task in os.listdir(tasks)) / 1e9
