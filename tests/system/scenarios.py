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
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from syncd.core.text import shown_path
from syncd.emulator import Emulator, RequestRecord, Sandbox
from syncd.emulator.extract import ArchiveRefused, Bounds
from syncd.sandbox.removal_plan import within
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection, SelectionSettings
from tests.fuzz.model import Ledger, gone_here, kinds_in, put_by
from tests.fuzz.operations import MARKS, Agent, Hand, Tree, tree
from tests.fuzz.scenario import Line, Story, story
from tests.system.command import CLOCK, Running
from tests.system.rig import KEY, Rig, emptied

_WHENS = ("before", "mid-body", "after")
INSTANTS = [(op, when) for op in ("upload-url", "upload", "initialize") for when in _WHENS]
MORE_INSTANTS = [(op, when) for op in ("execution-upload", "execute", "execution-logs", "reset") for when in _WHENS]
# What a person would have to mend, or would be waited for too long.
TOO_LONG = ("401", "404", "retry-after")
UNUSUAL = frozenset({"settings", "reconfigure", "agent_writes", "agent_removes"})
# Of the three sandboxes in ten minutes one is the first.
MOST_ENDS = 2
QUICK: dict[str, object] = {"sync.debounce_seconds": 0.05, "retry.first_delay_seconds": 0.05}
_POLL_S = 0.01


@dataclass
class Box:
    """One sandbox, and the account of it. What is done there by others takes turns with what syncd has done."""

    sandbox: Sandbox
    ledger: Ledger = field(default_factory=Ledger)
    turn: threading.Lock = field(default_factory=threading.Lock)


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
        self._plain = True
        self._forgetful = False
        self._ends = 0
        self._settings: tuple[Any, ...] = ("keep", "full", 0, 0, 1.0, False)
        self._boxes: dict[str, Box] = {}
        self._configure(self._settings)
        self._adopt(rig.sandbox)
        rig.emulator.faults.on("acquire", "after", lambda _: self._welcome())
        for op, when in [*INSTANTS, *MORE_INSTANTS]:
            rig.emulator.faults.on(op, when, self._at_instant((op, when)))

    def live(self, lines: Story) -> None:
        """From the first line to the last, to rest, and once more with a new process."""
        self._plain = not any(line.word in UNUSUAL for line in lines)
        for line in lines:
            if self.lost:
                return
            self._line(line)
        self._coming.clear()
        self._rig.emulator.faults.clear()
        self._rest(30.0)
        if self.lost:
            return
        # What was only deleted, where the agent has it now, makes no difference: it may not have been heard of yet.
        self._rig.run("flush", "--timeout", "20")
        if self._daemon.stop() != 0:
            self.lost.append(f"a stop ended with {self._daemon.code}")
        initialized, box = self._figures["initialized"], self._box
        self._start()
        self._rest(20.0)
        if self._figures["initialized"] != initialized and not self._state_harmed and self._box is box:
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
            if not self._is_too_long(line.args[0]):
                self._figures["faults"] += 1
                self._rig.faults(line.args[0])
        else:
            self._do(line)

    def _is_too_long(self, fault: str) -> bool:
        if self._settings[2] and fault.startswith(("acquire", "any")):
            self._ends += 1  # one that comes unanswered counts as well
            if self._ends > MOST_ENDS or " x" in fault:
                return True
        return any(word in fault for word in TOO_LONG)

    def _configure(self, settings: tuple[Any, ...]) -> None:
        deletions, archive, ttl_seconds, limit_kib, _, warns = self._settings = settings
        keys = {
            **QUICK,
            "sandbox.deletions": deletions,
            "sandbox.warn_on_remote_changes": warns,
            "sync.archive": archive,
            "sync.upload_limit_kib_per_second": limit_kib,
        }
        if not ttl_seconds:
            self._rig.configure(keys)
            return
        self._rig.configure({**keys, "sandbox.acquire.ttl_seconds": 7200})
        text = self._rig.config_file.read_text()
        self._rig.config_file.write_text("".join(row for row in text.splitlines(True) if "sandbox.id" not in row))

    def _do(self, line: Line) -> None:
        match line.word:
            case "settings" | "reconfigure":
                for box in self._boxes.values():
                    with box.turn:
                        if self._settings[0] == "keep":  # what came unanswered then is in no record
                            box.ledger.forgive()
                self._configure(line.args)
                self._figures["configured"] += 1
                if not self._down and self._listens():
                    self._daemon.send(signal.SIGHUP)
            case "forgetful":
                self._forgetful = True
            case "agent_writes" | "agent_removes" | "sandbox_ends" | "stall" | "unstall":
                if self._box is not None:
                    with contextlib.suppress(OSError):
                        self._over_there(self._box, line)
            case "kill" if not self._down:
                self._figures["kills"] += 1
                self._daemon.kill()
            case "stop" if not self._down:
                self._figures["stops"] += 1
                self._daemon.send(signal.SIGTERM)
            case "reload" | "order" as word if not self._down and self._listens():
                self._daemon.send(signal.SIGHUP if word == "reload" else signal.SIGUSR1)
            case "harm":
                if line.args[0] == "state":
                    self._state_harmed = True
                    self._ends = MOST_ENDS  # what it acquired may be forgotten
                    for box in self._boxes.values():
                        box.ledger.forgive()
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

    def _over_there(self, box: Box, line: Line) -> None:
        """Somebody else does something to the sandbox."""
        agent = Agent(box.sandbox.workspace)
        with box.turn:
            if line.word in ("agent_writes", "agent_removes") and not box.sandbox.holds:
                box.sandbox.wait()
            match line.word:
                case "agent_writes":
                    box.ledger.written(line.args[0], agent.write(*line.args))
                case "agent_removes":
                    before = tree(box.sandbox.workspace)
                    agent.remove(*line.args)
                    box.ledger.removed(line.args[0], before)
                case "sandbox_ends" if box.sandbox is not self._rig.sandbox and self._ends < MOST_ENDS:
                    self._ends += 1
                    box.sandbox.record.expires_at_s = 0.0
                case "stall" if not box.sandbox.holds:
                    box.sandbox.wait()
                    box.sandbox.hold()
                case "unstall" if box.sandbox.holds:
                    box.sandbox.start_held()
        self._figures["done there"] += 1

    @property
    def _box(self) -> Box | None:
        """The sandbox that the process goes to, as far as it says so."""
        return self._boxes.get(str(self._rig.shown().get("sandbox", {}).get("id", self._rig.sandbox.id)))

    @property
    def _box_is_gone(self) -> bool:
        box = self._box  # once: what the process says may be another the next moment
        return box is None or self._rig.emulator.sandbox(box.sandbox.id) is None

    def _says_so(self) -> bool:
        """Whether the process knows that it has nothing to do."""
        shown = self._rig.shown()
        return self._listens() and shown["state"] == "watching" and not shown["pending"]

    def _listens(self) -> bool:
        """Whether its handlers are there: a signal before that ends any process."""
        return self._rig.shown().get("pid") == self._daemon.pid

    def _at_instant(self, instant: tuple[str, str]) -> Callable[[RequestRecord], None]:
        def hook(_: RequestRecord) -> None:
            instants = INSTANTS if self._plain else [*INSTANTS, *MORE_INSTANTS]
            due = [
                line for line in self._coming if line.at is not None and instants[line.at % len(instants)] == instant
            ]
            for line in due:
                self._coming.remove(line)
                self.log.append(f"  at {' '.join(instant)}: {line}")
                self._do(line)

        return hook

    def _rest(self, timeout_s: float) -> None:
        """Until both sides are equal, by as many processes as it takes."""
        for box in self._boxes.values():
            if box.sandbox.holds:
                box.sandbox.start_held()

        def equal() -> bool:
            if self._down:
                self._start()
            elif self._box_is_gone and self._says_so():  # nothing that it does tells it of that
                self._figures["pushed by hand"] += 1
                self._rig.run("push", "--force")
            elif self._rig.shown()["state"] == "held" and self._rig.shown().get("pid") == self._daemon.pid:
                self._figures["guarded"] += 1
                self._rig.run("push", "--force")
            if self._hand.hidden and self._says_so():  # no event tells of that
                self._hand.hidden.clear()
                self._rig.run("flush", "--timeout", "20")
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
        try:
            return self._found_different()
        except FileNotFoundError:
            return ["the sandbox, or something here, went away while it was looked at"]

    def _found_different(self) -> list[str]:
        scanner = Scanner(str(self._rig.workspace), self._selection)
        included = scanner.scan().manifest
        wanted: Tree = {path: what for path, what in tree(self._rig.workspace).items() if path in included}
        box = self._box
        if box is None or self._box_is_gone:
            return ["there is no sandbox"]
        with box.turn:
            if box.sandbox.holds:
                box.sandbox.start_held()
            box.sandbox.wait()
            there = tree(box.sandbox.workspace)
            if not self._plain:
                blocked = self._blocked(wanted)
                free = {path: what for path, what in wanted.items() if not within(path, blocked)}
                lost = [*box.ledger.lacking(free, there), *box.ledger.robbed(there)]
                if self._settings[0] != "keep":
                    there = {path: what for path, what in there.items() if not within(path, blocked)}
                    left = box.ledger.left(free, there, exactly=False)
                    # For a new rule alone nobody's work is reset.
                    home = all(scanner.is_excluded(path, there[path][0] == "folder") for path in left)
                    if self._settings[0] != "reset" or not home:
                        lost += gone_here(left, there)
                return lost
        return [
            f"{path!r} is {wanted.get(path)!r:.50} here and {there.get(path)!r:.50} there"
            for path in sorted({*wanted, *there})
            if wanted.get(path) != there.get(path)
        ]

    def _blocked(self, wanted: Tree) -> set[str]:
        """What the process names as blocked: that, and what is below it, stays as it is there."""
        warnings = self._rig.shown()["warnings"]
        said = {path: f"{shown_path(path)!r} is not sent: in the sandbox " for path in wanted}
        return {path for path in wanted if any(warning.startswith(said[path]) for warning in warnings)}

    def _adopt(self, sandbox: Sandbox) -> None:
        """Each archive that is unpacked there, and each reset, is written down, and nothing marked is ever in one."""
        box = self._boxes[sandbox.id] = Box(sandbox)
        initialize, reset, execute = sandbox.initialize, sandbox.reset, sandbox.execute

        def watched(packed: BinaryIO, bounds: Bounds) -> int:
            start = packed.tell()
            tar = zlib.decompress(packed.read(), 31)
            packed.seek(start)
            self.lost += [f"{mark.decode()} left the laptop" for mark in MARKS if mark in tar]
            with box.turn:
                if self._plain or self._forgetful:  # so that each archive has to hold everything
                    emptied(sandbox.workspace)
                    box.ledger.emptied()
                try:
                    count = initialize(packed, bounds)
                except ArchiveRefused as error:
                    if self._plain or "could not be extracted" not in str(error):
                        self.lost.append(f"an archive that cannot be extracted: {error}")
                    there = tree(sandbox.workspace)
                    box.ledger.put(put_by(kinds_in(tar), there), there)
                    raise
                box.ledger.put(kinds_in(tar), tree(sandbox.workspace))
            for other in self._boxes.values():
                if other is not box:
                    other.ledger.forgive()  # the records are of one sandbox only
            self._figures["initialized"] += 1
            return count

        def watched_reset() -> None:
            self._figures["resets"] += 1
            with box.turn:
                reset()
                box.ledger.emptied()

        def in_turn(name: str, packed: BinaryIO, bounds: Bounds) -> None:
            self._figures["programs"] += 1
            with box.turn:
                execute(name, packed, bounds)

        sandbox.initialize = watched  # type: ignore[method-assign]
        sandbox.reset = watched_reset  # type: ignore[method-assign]
        sandbox.execute = in_turn  # type: ignore[method-assign]

    def _welcome(self) -> None:
        """A sandbox may have been acquired."""
        for sandbox in self._rig.emulator.sandboxes():
            if sandbox.id not in self._boxes:
                self._figures["acquired"] += 1
                self._adopt(sandbox)

    def _harm(self, where: str, how: str, number: int) -> None:
        """Something becomes of what the daemon keeps on disk."""
        top = self._rig.home / (".cache" if where == "spool" else ".local/state")
        # That a mark without content is gone, nobody can see.
        spared = {"lock", "unsure"} if how == "drop" else {"lock"}
        files = sorted(path for path in top.rglob("*") if path.is_file() and path.name not in spared)
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
