"""The cost of the agent's side: requests, bytes and time of a one-line edit, and of a diff of three changes.

git is the rival in bytes: the thin pack of the same edit's commit, which is what `git push` sends after its greeting.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from tests.bench import trees
from tests.bench.daemon import QUIET_S, SANDBOX, DaemonHome, TimedEmulator
from tests.bench.fixtures import Fixtures, lacks
from tests.bench.latency import edited
from tests.bench.stopwatch import CLOCK
from tests.bench.table import Row, Skipped, alone, compared, number
from tests.emulator.faults import API_OPS
from tests.emulator.handler import FaultyHandler

LETTERS = ("M", "L")
RIVAL = "git push (its thin pack)"
_CHANGED_THERE = 3
_KEYS: dict[str, dict[str, object]] = {
    "auto, save": {},
    "auto, overwrite": {"sandbox.agent_changes": "overwrite"},
    "full, save": {"sync.archive": "full"},  # last, and one edit, as it takes the longest
}


@dataclass
class Costs:
    """The figures of the same work, done several times. `looked_bytes` are those of the look's own upload."""

    seconds: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    sent_bytes: list[float] = field(default_factory=list)
    looked_bytes: list[float] = field(default_factory=list)
    received_bytes: list[float] = field(default_factory=list)


class _Received:
    """Counts the bytes that the emulator sends."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        write = FaultyHandler.write

        def counted(handler: FaultyHandler, data: bytes) -> None:
            self.count += len(data)
            write(handler, data)

        with mock.patch.object(FaultyHandler, "write", counted):
            yield


class _Life:
    """A daemon that has synced a tree, beside its emulator."""

    def __init__(self, tree: Path, timed_emulator: TimedEmulator, home: DaemonHome, received: _Received) -> None:
        self._tree = tree
        self._timed_emulator = timed_emulator
        self._home = home
        self._received = received
        self.workspace = _workspace_of(timed_emulator)
        self.edit(trees.victims(tree)[0])  # so that it is known what the sandbox and the line can do

    @property
    def _log(self) -> list[tuple[str, int]]:
        return [(entry.op, entry.bytes_in) for entry in self._timed_emulator.emulator.request_log.entries()]

    def edit(self, victim: str, costs: Costs | None = None) -> None:
        """Add a line to a file, and wait until it is in the sandbox."""
        self._home.run("flush")
        self._timed_emulator.forget()
        asked, received = len(self._log), self._received.count
        written_s = edited(self._tree, victim)
        done = self._timed_emulator.next()
        if costs is None:
            return
        costs.seconds.append(done.at_s - written_s - QUIET_S)
        self._note(costs, asked, received)

    def diff(self, costs: Costs) -> None:
        """Run `syncd diff` to its end."""
        asked, received, began_s = len(self._log), self._received.count, CLOCK.monotonic_s()
        try:
            self._home.run("diff")
        except subprocess.CalledProcessError as done:
            if done.returncode != 1:
                raise
        costs.seconds.append(CLOCK.monotonic_s() - began_s)
        self._note(costs, asked, received)

    def _note(self, costs: Costs, asked: int, received: int) -> None:
        found = self._log[asked:]
        costs.requests.append(sum(op in API_OPS for op, _ in found))
        costs.sent_bytes.append(sum(size_bytes for _, size_bytes in found))
        costs.looked_bytes.append(sum(size_bytes for op, size_bytes in found if op == "execution-upload"))
        costs.received_bytes.append(self._received.count - received)


def _workspace_of(timed_emulator: TimedEmulator) -> Path:
    sandbox = timed_emulator.emulator.sandbox(SANDBOX)
    assert sandbox is not None
    return sandbox.workspace


@contextmanager
def _living(folder: Path, tree: Path, keys: dict[str, object]) -> Iterator[_Life]:
    timed_emulator, received = TimedEmulator(folder / "cloud"), _Received()
    with timed_emulator.emulator as emulator, received.counting():
        emulator.create_sandbox(SANDBOX)
        home = DaemonHome(folder / "home", tree, emulator.base_url, emulator.api_key, keys)
        with home.daemon():
            timed_emulator.next()
            yield _Life(tree, timed_emulator, home, received)


class _Repository:
    """A repository of a tree, for what `git push` of an edit sends."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._git("init", "-q")
        self._git("add", "-A")
        self._commit()

    def _git(self, *words: str, given: bytes = b"") -> bytes:
        argv = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "gc.auto=0", *words)
        return subprocess.run(argv, cwd=self._tree, input=given, check=True, stdout=subprocess.PIPE).stdout

    def _commit(self) -> None:
        self._git("commit", "-qm", "one edit", "--no-verify")

    def pushed_bytes(self, victim: str) -> int:
        """Add a line to a file, commit it, and return the size of the pack that has what is new."""
        edited(self._tree, victim)
        self._git("add", "--", victim)
        self._commit()
        return len(self._git("pack-objects", "--revs", "--thin", "--stdout", "-q", given=b"HEAD\n^HEAD~1\n"))


def rows(fixtures: Fixtures) -> Iterator[Row | Skipped]:
    """The agent's side: requests, bytes and seconds of a one-line edit, and of a diff of three changes."""
    for letter in (letter for letter in LETTERS if letter in fixtures.sizes.trees):
        yield from _rows(fixtures, letter)


def _rows(fixtures: Fixtures, letter: str) -> Iterator[Row | Skipped]:
    folder = fixtures.scratch / "agent"
    victims = [victim for victim in trees.victims(fixtures.tree(letter)) if not victim.endswith(".pyc")]
    chosen = [victims[(7 * number_ + 1) % len(victims)] for number_ in range(fixtures.sizes.edits)]
    pushed: list[float] = []
    missing = lacks("git")
    if not missing:
        shutil.copytree(fixtures.tree(letter), folder / "git")
        repository = _Repository(folder / "git")
        pushed = [repository.pushed_bytes(victim) for victim in chosen]
    for name, keys in _KEYS.items():
        tree = folder / "tree"
        shutil.copytree(fixtures.tree(letter), tree)
        cost, differed = Costs(), Costs()
        with _living(folder, tree, keys) as life:
            for victim in chosen[:1] if "sync.archive" in keys else chosen:
                life.edit(victim, cost)
            if not keys:
                for victim in victims[-_CHANGED_THERE:]:
                    edited(life.workspace, victim)
                for _ in range(fixtures.sizes.rounds):
                    life.diff(differed)
        for part in ("tree", "home", "cloud"):
            shutil.rmtree(folder / part)
        yield from _edit_rows(f"edit, {letter}, {name}", cost, pushed)
        if not keys:
            yield from _diff_rows(f"diff of {_CHANGED_THERE}, {letter}", differed)
    shutil.rmtree(folder)


def _edit_rows(title: str, cost: Costs, pushed: list[float]) -> Iterator[Row]:
    yield alone(f"{title}: requests", cost.requests, unit=number, goal="<= 8")
    if pushed:
        yield compared(f"{title}: bytes up", RIVAL, cost.sent_bytes, pushed, unit=number)
    else:
        yield alone(f"{title}: bytes up", cost.sent_bytes, unit=number)
    if any(cost.looked_bytes):
        yield alone(f"{title}: of these, the look", cost.looked_bytes, unit=number)
    yield alone(f"{title}: to initialized", cost.seconds)


def _diff_rows(title: str, cost: Costs) -> Iterator[Row]:
    yield alone(f"{title}: process", cost.seconds)
    yield alone(f"{title}: requests", cost.requests, unit=number)
    yield alone(f"{title}: bytes up", cost.sent_bytes, unit=number)
    yield alone(f"{title}: bytes down", cost.received_bytes, unit=number)
