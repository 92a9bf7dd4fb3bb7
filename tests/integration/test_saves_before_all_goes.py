"""Before all in a sandbox goes, it is looked at once more: for what was written while the last finds were fetched."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from syncd.core.errors import TryLater
from syncd.emulator.sandbox import Execution
from tests.agent import Agent
from tests.integration.sync_rig import Rig


class Fetches:
    """The contents that are fetched from a sandbox; each fetch takes ten seconds, in which its agent goes on."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch, goes_on: Callable[[int], None]) -> None:
        self.contents: list[list[str]] = []
        self._rig = rig
        self._export = rig.sandbox.export
        self._goes_on = goes_on
        monkeypatch.setattr(rig.sandbox, "export", self._exported)

    def _exported(self, execution: Execution, file: BinaryIO) -> None:
        copies = Path(execution.folder, "copies").glob("*")
        self.contents.append(sorted(copy.read_text() for copy in copies))
        self._export(execution, file)
        self._goes_on(len(self.contents))
        self._rig.clock.go_on(10)


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """`a` and `b` are in the sandbox, and what a rule excludes; the agent changed `a` and made `new`."""
    bare.use_defaults()
    bare.edit(a="ours", b="ours")
    bare.write(".gitignore", "*.log\n")
    bare.settle()
    bare.agent.write("x.log", "stays there")
    bare.agent.write("a", "theirs")
    bare.agent.write("new", "theirs, new")
    return bare


def moved(rig: Rig) -> Agent:
    """Have the next sandbox be another one."""
    other = rig.emulator.create_sandbox("next")
    rig.set(id="next")
    return Agent(other.workspace)


def test_what_is_written_during_the_fetch(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is saved before the sandbox is left, and nothing is fetched twice."""

    def goes_on(number: int) -> None:
        if number == 1:
            rig.agent.write("a", "theirs, later")
            rig.agent.write("x.log", "stays there, too")
            rig.agent.write("late", "theirs, late")

    fetches = Fetches(rig, monkeypatch, goes_on)
    there = moved(rig)
    rig.sync()
    assert rig.saved == {"a": ["theirs", "theirs, later"], "new": ["theirs, new"], "late": ["theirs, late"]}
    assert fetches.contents == [
        ["stays there", "theirs", "theirs, new"],
        ["theirs, late", "theirs, later"],  # by now it is known that the rules exclude x.log
    ]
    assert there.read("b") == b"ours"


def test_what_is_taken_back_or_deleted_meanwhile(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no change any more, and what was saved of it stays saved."""

    def goes_on(_: int) -> None:
        rig.agent.write("a", "ours")
        rig.agent.delete("new")

    Fetches(rig, monkeypatch, goes_on)
    moved(rig)
    rig.sync()
    assert rig.saved == {"a": ["theirs"], "new": ["theirs, new"]}


def test_an_agent_that_does_not_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox is left when it comes to rest, and what it wrote until then is saved."""

    def goes_on(number: int) -> None:
        if number <= 7:
            rig.agent.write("a", f"theirs: {number}")

    Fetches(rig, monkeypatch, goes_on)
    there = moved(rig)
    with pytest.raises(
        TryLater, match=r"the sandbox box is not left, as 1 path .* changes faster than it can be saved"
    ):
        rig.sync()
    assert not there.exists("b")
    rig.sync()
    assert rig.saved["a"] == ["theirs", *(f"theirs: {number}" for number in range(1, 8))]
    assert there.read("b") == b"ours"


def test_looks_that_take_long_each_time(rig: Rig) -> None:
    """A second one is as good as it gets: the sandbox is left."""
    rig.emulator.faults.on("execution-logs", "after", lambda _: rig.clock.go_on(5))
    there = moved(rig)
    rig.sync()
    assert rig.saved == {"a": ["theirs"], "new": ["theirs, new"]}
    assert there.read("b") == b"ours"


def test_a_sandbox_whose_initialize_replaces_all(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only the agent has, and writes during the fetch, is saved before its initialize."""
    rig.emulator.faults.script("initialize: replace always")
    rig.restart()
    replaces: Any = rig.cycle.sandbox
    replaces.partial_archives.ask_if_kept(["never there 1", "never there 2"])
    Fetches(rig, monkeypatch, lambda number: rig.agent.write("late", "theirs, late") if number == 1 else None)
    rig.send({"b": "newer"})
    assert rig.saved == {"a": ["theirs"], "new": ["theirs, new"], "late": ["theirs, late"]}
    assert (rig.there("a"), rig.there("b"), rig.there("late")) == ("ours", "newer", None)


@pytest.fixture
def whole(bare: Rig) -> Rig:
    """`a` and `b` are in the sandbox, by whole archives."""
    bare.use_defaults()
    bare.set("sync", archive="full")
    bare.edit(a="ours", b="ours")
    bare.settle()
    return bare


def test_what_is_written_before_its_removal(whole: Rig) -> None:
    """It may go with all else until it is known that an initialize leaves it alone: so it is looked at anew."""
    whole.emulator.faults.script("initialize: replace always")
    executions: list[object] = []

    def goes_on(execution: object) -> None:
        executions.append(execution)
        if len(executions) == 2:  # the look has ended, and the removal begins
            whole.agent.write("a", "theirs")

    whole.emulator.faults.on("execute", "before", goes_on)
    whole.delete("a")
    whole.settle()
    assert (whole.saved, whole.there("b")) == ({"a": ["theirs"]}, "ours")


def test_a_removal_that_never_finds_what_the_look_found(whole: Rig) -> None:
    """It is looked at anew twice, and no more: all else arrives, and what is there stays."""
    contents = cycle(("ours", "theirs"))
    whole.emulator.faults.on("execute", "before", lambda _: whole.agent.write("a", next(contents)))
    whole.delete("a")
    assert whole.send({"b": "newer"}).word == "initialized"
    assert (whole.there("a"), whole.there("b")) == ("theirs", "newer")
