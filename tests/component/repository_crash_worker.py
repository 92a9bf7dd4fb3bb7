"""Runs the program of the repository in the sandbox in processes that are killed at any of their steps.

A step is one of `crash_worker`, a file that was opened to be written and is empty, or the end of another program.
"""

from __future__ import annotations

import builtins
import functools
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.component.crash_worker import StepKiller, arm
from tests.component.forks import Order, serve


def _arm(trip: StepKiller) -> None:
    arm(trip)
    builtins.open, os.open = _and_then(trip, builtins.open), _and_then(trip, os.open)
    wait = subprocess.Popen.wait

    def waited(*arguments: Any, **options: Any) -> int:
        trip.step("wait")
        code = wait(*arguments, **options)
        trip.step("end")
        return code

    subprocess.Popen.wait = waited  # type: ignore[method-assign]


def _and_then(trip: StepKiller, call: Callable[..., Any]) -> Any:
    """Return the call with one step more after it, if it is one."""

    @functools.wraps(call)
    def counted(*arguments: Any, **options: Any) -> Any:
        before = len(trip.steps)
        result = call(*arguments, **options)
        if len(trip.steps) > before:
            trip.step("opened")
        return result

    return counted


def _one_process(order: Order) -> None:
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    trip = StepKiller(order["at"], torn=False, folders=[], report=order["report"])
    _arm(trip)
    runpy.run_path(os.path.join(order["folder"], "main.py"), run_name="__main__")
    sys.stdout.flush()
    trip.tell(("done", ""))


if __name__ == "__main__":
    serve(_one_process)
