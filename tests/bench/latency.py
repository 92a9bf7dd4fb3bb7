"""The time from the last write to the initialized sandbox, without the quiet period."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench import inotifywait, null_server, trees
from tests.bench.daemon import DEADLINE_S, QUIET_S, Initialized, running
from tests.bench.fixtures import Fixtures, lacks
from tests.bench.stopwatch import CLOCK
from tests.bench.table import Row, Skipped, alone, compared

TIMES = {"S": 20, "M": 5}
_LOOP = 'while inotifywait -r -e "$EVENTS" "$TREE" >/dev/null; do tar czf - -C "$TREE" . | curl -sS -T - "$URL"; done'
RIVAL = "inotifywait; tar czf - | curl -T -"


class ShellLoop:
    """A simple shell loop: it waits for a change, packs everything and sends it."""

    def __init__(self, tree: Path, process: subprocess.Popen[bytes], arrived: queue.SimpleQueue[float]) -> None:
        self._tree = tree
        self._process = process
        self._arrived = arrived

    def after(self, victim: str) -> float:
        """Return the seconds from an edit until the whole archive has arrived."""
        assert self._process.stderr is not None
        inotifywait.await_established(self._process.stderr)
        written_s = edited(self._tree, victim)
        return self._arrived.get(timeout=DEADLINE_S) - written_s

    @classmethod
    @contextmanager
    def running(cls, tree: Path) -> Iterator[ShellLoop]:
        """Give the loop, and a server to send to."""
        with null_server.listening() as (url, arrived):
            env = {**os.environ, "EVENTS": inotifywait.EVENTS, "TREE": str(tree), "URL": url}
            process = subprocess.Popen(
                ("sh", "-c", _LOOP),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that it ends with all that it started
            )
            try:
                yield cls(tree, process, arrived)
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.communicate()


def edited(tree: Path, victim: str) -> float:
    """Add a line to the file, and return the monotonic time of the write."""
    with open(tree / victim, "a") as file:
        file.write("#\n")
    return CLOCK.monotonic_s()


def rows(fixtures: Fixtures) -> Iterator[Row | Skipped]:
    """Latency: last write to `initialized`, less the quiet time, against a shell loop that ends with the upload."""
    missing = lacks("inotifywait", "tar", "curl")
    for letter in (letter for letter in TIMES if letter in fixtures.sizes.trees):
        mine, theirs = fixtures.scratch / "latency/mine", fixtures.scratch / "latency/theirs"
        for copy in (mine, theirs):
            shutil.copytree(fixtures.tree(letter), copy)
        victims = trees.victims(mine)
        ours: list[float] = []
        arrived: list[float] = []
        loop: list[float] = []
        with ExitStack() as stack:
            timed_emulator, daemon_home, _ = stack.enter_context(running(fixtures.scratch / "latency/home", mine))
            shell = None if missing else stack.enter_context(ShellLoop.running(theirs))
            for number in range(TIMES[letter]):
                victim = victims[7 * number % len(victims)]
                daemon_home.run("flush")
                timed_emulator.forget()
                written_s = edited(mine, victim)
                done: Initialized = timed_emulator.next()
                arrived.append(done.uploaded_s - written_s - QUIET_S)
                ours.append(done.at_s - written_s - QUIET_S)
                if shell is not None:
                    loop.append(shell.after(victim))
        title = f"latency, {letter}"
        if missing:
            yield Skipped(f"{title}: the shell loop", missing)
        for what, took in (("archive received", arrived), ("initialized", ours)):
            if loop:
                yield compared(f"{title}: edit to {what}", RIVAL, took, loop)
            else:
                yield alone(f"{title}: edit to {what}", took)
        shutil.rmtree(fixtures.scratch / "latency")
