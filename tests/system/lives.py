"""A story lived by the real command: its own process, real inotify, `kill -9`; what is scripted elsewhere takes place.

Lines that need another clock, or an ear in the process, are passed over. One for an instant of a sync happens at an
instant of the next request instead: before it, in the middle of its body, or after it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from command import CLOCK, Running
from fuzz.hand import MARKS, Hand, Tree, tree
from fuzz.story import Line, Story, story
from rig import KEY, Rig, emptied

from syncd.effects.scan import Scanner
from syncd.emulator import Emulator, Entry
from syncd.emulator.extract import Bounds
from syncd.policy.selection import Selection, SelectionSettings

INSTANTS = [(op, when) for op in ("upload-url", "upload", "initialize") for when in ("before", "mid-body", "after")]
# What a person would have to mend, or would be waited for too long.
TOO_LONG = ("401", "404", "retry-after")
QUICK: dict[str, object] = {"sync.debounce_seconds": 0.05, "retry.first_delay_seconds": 0.05}
_POLL_S = 0.01


class Life:
    """One story's processes. What was broken is in `lost`."""

    def __init__(self, rig: Rig, figures: Counter[str]) -> None:
        self._rig = rig
        self._figures = figures
        self._hand = Hand(rig.workspace, rig.home)
        self._selection = Selection(SelectionSettings())
        self._coming: list[Line] = []
        self._state_harmed = False
        self.lost: list[str] = []
        self.log: list[str] = []
        rig.configure(QUICK)
        self._watch_sandbox()
        for op, when in INSTANTS:
            rig.emulator.faults.on(op, when, self._at_instant(INSTANTS.index((op, when))))

    def live(self, lines: Story) -> None:
        """From the first line to the last, to rest, and once more with a new process."""
        for line in lines:
            if self.lost:
                return
            self._line(line)
        self._coming.clear()
        self._rig.emulator.faults.clear()
        self._rest(30.0)
        if self.lost:
            return
        if self._daemon.stop() != 0:
            self.lost.append(f"a stop ended with {self._daemon.code}")
        initialized = self._figures["initialized"]
        self._start()
        self._rest(20.0)
        if self._figures["initialized"] != initialized and not self._state_harmed:
            self.lost.append("a new process sent again what the last one had sent")

    @property
    def _daemon(self) -> Running:
        return self._rig.daemons[-1]

    @property
    def _down(self) -> bool:
        return not self._rig.daemons or self._daemon.code is not None

    def _start(self) -> None:
        self._figures["processes"] += 1
        self._rig.start()

    def _line(self, line: Line) -> None:
        self.log.append(str(line))
        if line.at is not None:
            self._coming.append(line)
        elif line.word in ("rest", "failing"):
            self._rest(30.0) if line.word == "rest" else self._fail()
        elif line.word == "fault":
            if not any(word in line.args[0] for word in TOO_LONG):
                self._figures["faults"] += 1
                self._rig.faults(line.args[0])
        else:
            self._do(line)

    def _do(self, line: Line) -> None:
        match line.word:
            case "kill" if not self._down:
                self._figures["kills"] += 1
                self._daemon.kill()
            case "stop" if not self._down:
                self._figures["stops"] += 1
                self._daemon.send(signal.SIGTERM)
            case "reload" | "order" as word if not self._down and self._listens():
                self._daemon.send(signal.SIGHUP if word == "reload" else signal.SIGUSR1)
            case "harm":
                self._state_harmed |= line.args[0] == "state"
                self._figures["harms"] += 1
                with contextlib.suppress(OSError):
                    self._harm(*line.args)
            case "hard":
                pass  # written by a name that is left out, a file brings no event, and the next look is minutes away
            case "hush":
                pass  # which of a rule and a look was first shows only in scripted time
            case word if hasattr(Hand, word):
                with contextlib.suppress(OSError):
                    getattr(self._hand, word)(*line.args)
                    self._figures["deeds"] += 1

    def _says_so(self) -> bool:
        """Whether the process knows that it has nothing to do."""
        shown = self._rig.shown()
        return self._listens() and shown["state"] == "watching" and not shown["pending"]

    def _listens(self) -> bool:
        """Whether its handlers are there: a signal before that ends any process."""
        return self._rig.shown().get("pid") == self._daemon.pid

    def _at_instant(self, number: int) -> Callable[[Entry], None]:
        def hook(_: Entry) -> None:
            due = [line for line in self._coming if line.at is not None and line.at % len(INSTANTS) == number]
            for line in due:
                self._coming.remove(line)
                self.log.append(f"  at {' '.join(INSTANTS[number])}: {line}")
                self._do(line)

        return hook

    def _rest(self, timeout_s: float) -> None:
        """Until both sides are equal, by as many processes as it takes."""

        def equal() -> bool:
            if self._down:
                self._start()
            elif self._rig.shown()["state"] == "held" and self._rig.shown().get("pid") == self._daemon.pid:
                self._figures["guarded"] += 1
                self._rig.run("push", "--force")
            return not self._differences() and self._says_so()

        if not self._until(equal, timeout_s):
            self.lost += self._differences() or [f"it does not come to rest: {self._rig.shown()}"]
        self._coming.clear()

    def _fail(self) -> None:
        """Until a failure is waited out, or there is none for a while."""
        if self._down:
            self._start()
        self._until(lambda: self._down or self._rig.shown()["state"] == "retrying", 0.5)

    def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline_s = CLOCK.monotonic_s() + timeout_s
        while not condition():
            if CLOCK.monotonic_s() > deadline_s:
                return False
            CLOCK.sleep(_POLL_S)
        return True

    def _differences(self) -> list[str]:
        included = Scanner(str(self._rig.workspace), self._selection).scan().manifest
        wanted: Tree = {path: what for path, what in tree(self._rig.workspace).items() if path in included}
        try:
            there = tree(self._rig.sandbox.workspace)
        except FileNotFoundError:  # it is extracting
            return ["it is extracting"]
        return [
            f"{path!r} is {wanted.get(path)!r:.50} here and {there.get(path)!r:.50} there"
            for path in sorted({*wanted, *there})
            if wanted.get(path) != there.get(path)
        ]

    def _watch_sandbox(self) -> None:
        """Each initialize leaves just its archive's content in the sandbox, and nothing marked is ever in one."""
        sandbox = self._rig.sandbox
        initialize = sandbox.initialize

        def alone(packed: BinaryIO, bounds: Bounds) -> int:
            start = packed.tell()
            tar = zlib.decompress(packed.read(), 31)
            packed.seek(start)
            self.lost += [f"{mark.decode()} left the laptop" for mark in MARKS if mark in tar]
            emptied(sandbox.workspace)
            count = initialize(packed, bounds)
            self._figures["initialized"] += 1
            return count

        sandbox.initialize = alone  # type: ignore[method-assign]

    def _harm(self, where: str, how: str, number: int) -> None:
        """Something becomes of what the daemon keeps on disk."""
        top = self._rig.home / (".cache" if where == "spool" else ".local/state")
        files = sorted(path for path in top.rglob("*") if path.is_file() and path.name != "lock")
        if not files:
            return
        file = files[number % len(files)]
        match how:
            case "flip":
                content = bytearray(file.read_bytes())
                content[(number * 997) % len(content)] ^= 4
                file.write_bytes(content)
            case "cut":
                os.truncate(file, file.stat().st_size // 2)
            case "drop":
                file.unlink()
            case "empty" if where == "spool":
                shutil.rmtree(top)


def told_of(life: Life, rig: Rig) -> str:
    """What a person wants to read of a story that ended badly."""
    return "\n".join([*life.log, "", *life.lost[:5], "", rig.story()])


def lived_by_processes(batch: tuple[str | None, Sequence[int]]) -> tuple[Counter[str], list[str]]:
    """Lives the stories of these seeds in a folder below that one: what happened, and a report of each loss."""
    place, seeds = batch
    figures: Counter[str] = Counter()
    reports = []
    for seed in seeds:
        with tempfile.TemporaryDirectory(dir=place, prefix="life-") as name:
            with Emulator(Path(name) / "cloud", api_key=KEY) as emulator:
                rig = Rig(Path(name), emulator)
                life = Life(rig, figures)
                try:
                    life.live(story(seed))
                finally:
                    rig.close()
                lost = [*life.lost, *rig.leaks()]
            figures["stories"] += 1
            if lost:
                figures["losses"] += 1
                reports.append(f"seed {seed}, with --processes:\n{told_of(life, rig)}")
    return figures, reports
