"""A program that loads its modules once and runs each order in a fork, so that hundreds of deaths take seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.repo.sources import REPO

Order = dict[str, Any]


class Forks:
    """The program, to be given orders. It keeps nothing of them, and may serve many tests."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def died(self, order: Order) -> bool:
        """Run an order, and return if it was killed, and did not end by itself."""
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        assert code in (0, -signal.SIGKILL), "the process itself broke; see its stderr"
        return code != 0


@contextmanager
def forks_of(module: str) -> Iterator[Forks]:
    """Start a module that calls `serve`."""
    command = [sys.executable, "-m", module]
    with subprocess.Popen(command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Forks(process)
        finally:
            process.stdin.close()
            process.wait()


def serve(run: Callable[[Order], object], warm_up: Callable[[Order], None] = lambda _: None) -> None:
    """Run each order of stdin in a fork, the first one after a warm-up, and answer with its exit status."""
    answers = os.fdopen(os.dup(1), "w")  # an order may print
    for number, line in enumerate(sys.stdin):
        order = json.loads(line)
        if number == 0:
            warm_up(order)
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                run(order)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
