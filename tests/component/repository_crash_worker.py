"""Runs the program of the repository in the sandbox in processes that end at any of their steps.

A step is a call that changes a file, or the start or end of another program.
"""

from __future__ import annotations

import builtins
import functools
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.component.forks import Order, serve

DEAD = 9
_CREATES = os.O_CREAT | os.O_TRUNC


class _Steps:
    def __init__(self, at: int) -> None:
        self._at = at
        self.count = 0

    def step(self) -> None:
        """Count a step, and die at the chosen one."""
        self.count += 1
        if self.count == self._at:
            os._exit(DEAD)

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call as a step."""

        @functools.wraps(call)
        def counted(*arguments: Any, **options: Any) -> Any:
            self.step()
            return call(*arguments, **options)

        return counted

    def around(self, call: Callable[..., Any], is_step: Callable[..., bool] = lambda *_, **__: True) -> Any:
        """Return the call as two steps, before it and after it."""

        @functools.wraps(call)
        def counted(*arguments: Any, **options: Any) -> Any:
            if not is_step(*arguments, **options):
                return call(*arguments, **options)
            self.step()
            result = call(*arguments, **options)
            self.step()
            return result

        return counted


def _arm(steps: _Steps) -> None:
    for name in ("mkdir", "makedirs", "rename", "link", "unlink", "rmdir"):
        setattr(os, name, steps.before(getattr(os, name)))
    shutil.rmtree = steps.before(shutil.rmtree)  # type: ignore[assignment]
    real_open, real_run, real_wait = builtins.open, subprocess.run, subprocess.Popen.wait
    # A file that was opened to be written is empty at first.
    builtins.open = steps.around(real_open, lambda _, mode="r", *__, **___: bool(set(mode) & set("wxa+")))
    os.open = steps.around(os.open, lambda _, flags=0, *__, **___: bool(flags & _CREATES))
    subprocess.run = steps.around(real_run)
    subprocess.Popen.wait = steps.around(real_wait)  # type: ignore[method-assign]


def _one_process(order: Order) -> None:
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    steps = _Steps(order["at"])
    _arm(steps)
    runpy.run_path(os.path.join(order["folder"], "main.py"), run_name="__main__")
    sys.stdout.flush()
    os.write(os.open(order["count"], os.O_WRONLY), b"%d" % steps.count)


if __name__ == "__main__":
    serve(_one_process)
